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
  environment.systemPackages = [ cfg.packages.sandbox ];

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

  # The module that fits this processor, if any. An emulated machine may say that it can have machines in it; they would never get anywhere.
  systemd.services.rave-sandbox-kvm = {
    description = "KVM for sandboxes";
    wantedBy = [ "multi-user.target" ];
    before = [ "rave-sandbox.service" ];
    unitConfig.ConditionVirtualization = "!qemu";
    serviceConfig = {
      Type = "oneshot";
      RemainAfterExit = true;
      ExecStart = [
        "-${pkgs.kmod}/bin/modprobe --quiet kvm_intel"
        "-${pkgs.kmod}/bin/modprobe --quiet kvm_amd"
      ];
      CapabilityBoundingSet = "CAP_SYS_MODULE";
      NoNewPrivileges = true;
      ProtectHome = true;
      PrivateTmp = true;
      PrivateNetwork = true;
      RestrictNamespaces = true;
      SystemCallArchitectures = "native";
    };
  };

  systemd.services.rave-sandbox = {
    description = "Sandboxes for merge requests";
    wantedBy = [ "multi-user.target" ];
    after = [ "rave-sandbox-kvm.service" ];
    path = with pkgs; [
      dropbear
      e2fsprogs
      git
      iproute2
      util-linux
      config.systemd.package
    ];
    # Root, because it makes units and disks. What it may do beyond that is taken away: it reads the forge's repositories, and writes
    # only below its own folder. Sandboxes are units of their own and go on when this one ends.
    serviceConfig = {
      Type = "notify";
      NotifyAccess = "main";
      Group = "rave-sandbox";
      ExecStart = "${program} serve";
      Restart = "always";
      RestartSec = "1s";
      RuntimeDirectory = "rave-sandbox";
      RuntimeDirectoryMode = "0750";
      RuntimeDirectoryPreserve = "restart";
      StateDirectory = "rave-sandbox";
      StateDirectoryMode = "0700";
      UMask = "0077";
      NoNewPrivileges = true;
      CapabilityBoundingSet = "CAP_DAC_READ_SEARCH";
      ProtectSystem = "strict";
      ProtectHome = true;
      PrivateTmp = true;
      IPAddressDeny = "any";
      IPAddressAllow = "localhost";
      DevicePolicy = "closed";
      DeviceAllow = "/dev/kvm rw";
      ProtectKernelTunables = true;
      ProtectKernelModules = true;
      ProtectKernelLogs = true;
      ProtectControlGroups = true;
      ProtectClock = true;
      ProtectHostname = true;
      ProtectProc = "invisible";
      RestrictAddressFamilies = [
        "AF_UNIX"
        "AF_INET"
        "AF_INET6"
      ];
      RestrictNamespaces = true;
      RestrictRealtime = true;
      RestrictSUIDSGID = true;
      LockPersonality = true;
      SystemCallArchitectures = "native";
      SystemCallFilter = [
        "@system-service"
        "~@privileged @resources"
      ];
      SystemCallErrorNumber = "EPERM";
      OOMPolicy = "stop";
    };
  };
}
