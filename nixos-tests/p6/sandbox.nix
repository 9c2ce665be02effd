# rave-sandbox: machines for merge requests, each a unit with limits of its own. They need KVM inside this machine.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.rave;
  program = lib.getExe' cfg.packages.sandbox "rave-sandbox";
  machine = pkgs.callPackage ../sandbox-machine.nix { inherit (config.boot.kernelPackages) kernel; };
  tools = {
    git = "${pkgs.git}/bin/git";
    ip = "${pkgs.iproute2}/bin/ip";
    setpriv = "${pkgs.util-linux}/bin/setpriv";
    unshare = "${pkgs.util-linux}/bin/unshare";
  };
in
lib.mkIf cfg.fullPipe {
  environment.etc."rave/sandbox.toml".source = (pkgs.formats.toml { }).generate "sandbox.toml" {
    at_most = 2;
    memory_max_mib = 4096;
    machine_memory_mib = if cfg.safeMode then 1024 else 3072;
    cpu_quota_percent = 200;
    ttl_seconds = 1200;
    longest_ttl_seconds = 1200;
    listen = "127.0.0.1";
    ssh_ports = [
      2200
      2299
    ];
    web_ports = [
      3100
      3199
    ];
    repositories = "/var/lib/rave-forge";
    files = {
      root = "${machine}/root.ext4";
      kernel = "${machine}/vmlinuz";
      initrd = "${machine}/initrd.img";
      qemu = "${pkgs.qemu_kvm}/bin/qemu-system-x86_64";
      # nixpkgs has none; without KVM a sandbox is refused with the reason.
      uml = "/nonexistent";
      inherit program;
    };
  };

  # The units of sandboxes have a path of their own, /usr/sbin and /usr/bin.
  systemd.tmpfiles.settings."20-rave-sandbox" = lib.mapAttrs' (
    name: path: lib.nameValuePair "/usr/bin/${name}" { "L+".argument = path; }
  ) tools;

  systemd.services.rave-sandbox = {
    description = "Sandboxes for merge requests";
    wantedBy = [ "multi-user.target" ];
    after = [ "gitlab.service" ];
    path = with pkgs; [
      dropbear
      e2fsprogs
      git
      iproute2
      util-linux
      config.systemd.package
    ];
    serviceConfig = {
      Type = "notify";
      ExecStart = "${program} serve";
      Restart = "on-failure";
      RestartSec = "2s";
      # Root, to ask systemd for units; the socket is for the bridge.
      Group = "rave-sandbox";
      SupplementaryGroups = [ config.services.gitlab.group ];
      RuntimeDirectory = "rave-sandbox";
      RuntimeDirectoryMode = "0755";
      StateDirectory = "rave-sandbox";
      StateDirectoryMode = "0711";
      NoNewPrivileges = true;
      LockPersonality = true;
      PrivateTmp = true;
      ProtectClock = true;
      ProtectHome = true;
      ProtectHostname = true;
      ProtectKernelLogs = true;
      ProtectKernelModules = true;
      ProtectKernelTunables = true;
      ProtectSystem = "strict";
      RestrictRealtime = true;
      RestrictSUIDSGID = true;
      SystemCallArchitectures = "native";
    };
  };
}
