# The machine itself: names, accounts, journal, and what is left out.
{
  config,
  lib,
  pkgs,
  ...
}:
{
  system.stateVersion = "26.05";

  networking.hostName = "rave";
  # Synapse, Grafana and the bridge reach GitLab by the name that browsers use.
  networking.hosts."127.0.0.1" = [ config.rave.host ];
  # One address, from whoever runs the machine. No other name is asked for.
  networking.useNetworkd = true;
  services.resolved.enable = false;
  time.timeZone = "UTC";
  i18n.defaultLocale = "C.UTF-8";

  # Nobody has a password: who comes in has a key. NixOS asks for a way in that it can see; this one comes with the machine.
  users.mutableUsers = false;
  users.allowNoPasswordLogin = true;
  users.groups.agent = { };
  users.users.agent = {
    isNormalUser = true;
    group = "agent";
    description = "Agents that come in by SSH";
  };
  # Their modules give these a shell, and nothing here logs in as them.
  users.users.gitlab.shell = lib.mkForce pkgs.shadow;
  users.users.matrix-synapse.shell = lib.mkForce pkgs.shadow;
  users.users.postgres.shell = pkgs.shadow;

  # An emulated machine is slow; a service that needs longer than this is stuck.
  systemd.settings.Manager.DefaultTimeoutStartSec = "300s";
  services.journald.extraConfig = "SystemMaxUse=1G";

  # What operators use to look around.
  environment.systemPackages = with pkgs; [
    curl
    git
    jq
    openssl
    python3
  ];
  environment.defaultPackages = [ ];
  documentation.enable = false;
  # Nothing is built or installed here.
  nix.settings.allowed-users = [ "root" ];

  boot.kernel.sysctl = {
    "kernel.dmesg_restrict" = 1;
    "kernel.kptr_restrict" = 2;
    "kernel.unprivileged_bpf_disabled" = 1;
    "net.ipv4.conf.all.accept_redirects" = 0;
    "net.ipv4.conf.all.send_redirects" = 0;
    "net.ipv6.conf.all.accept_redirects" = 0;
  };
}
