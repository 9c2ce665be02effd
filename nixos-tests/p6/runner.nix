# The runner of GitLab's pipelines. Jobs run as an account of the runner's own, which systemd makes anew and confines.
{
  config,
  lib,
  pkgs,
  ...
}:
{
  rave.secrets.owners.forge-runner = "root";

  # gitlab-setup.rb makes the runner with this token.
  sops.templates."gitlab-runner.env".content = ''
    CI_SERVER_URL=${config.rave.origin}/gitlab
    CI_SERVER_TOKEN=${config.sops.placeholder.forge-runner}
    CI_SERVER_TLS_CA_FILE=/etc/rave/ca.crt
  '';

  services.gitlab-runner = {
    enable = config.rave.fullPipe;
    settings.concurrent = 2;
    extraPackages = with pkgs; [
      bash
      coreutils
      git
    ];
    services.rave = {
      executor = "shell";
      authenticationTokenConfigFile = config.sops.templates."gitlab-runner.env".path;
      environmentVariables.GIT_SSL_CAINFO = "/etc/rave/ca.crt";
    };
  };

  systemd.services.gitlab-runner = lib.mkIf config.rave.fullPipe {
    requires = [ "rave-gitlab-setup.service" ];
    after = [
      "rave-gitlab-setup.service"
      # It signs in with GitLab's public address, and the module does not try again.
      "nginx.service"
    ];
    serviceConfig = {
      Restart = "on-failure";
      RestartSec = "10s";
      NoNewPrivileges = true;
      PrivateDevices = true;
      ProtectControlGroups = true;
      ProtectKernelModules = true;
      ProtectKernelTunables = true;
      RestrictSUIDSGID = true;
    };
  };
}
