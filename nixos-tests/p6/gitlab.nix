# GitLab CE below /gitlab, the forge and the OpenID provider of everything else.
#
# Its module knows no relative root. Five programs must know it: Rails (twice: as its configuration and as Rails' own root),
# workhorse, gitlab-shell, and gitaly, whose hooks ask Rails on every push. Without one of them pages load, and the rest fails.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.gitlab;
  root = "/gitlab";
  secret = name: "/etc/rave/secrets/${name}";
  proxy = import ./proxy.nix;

  # gitaly's configuration is fixed by the module, so gitaly reads it with one line more. Its package carries its git.
  withRelativeRoot = pkgs.writeShellScript "gitaly" ''
    if [ $# != 1 ] || [ ! -f "$1" ]; then
      exec ${pkgs.gitaly}/bin/gitaly "$@"
    fi
    settings=${cfg.statePath}/config/gitaly.toml
    ${pkgs.gnused}/bin/sed '/^\[gitlab\]$/a relative_url_root = "${root}"' "$1" > "$settings"
    exec ${pkgs.gitaly}/bin/gitaly "$settings"
  '';
  gitaly = pkgs.symlinkJoin {
    name = "gitaly-with-relative-root";
    paths = [ pkgs.gitaly ];
    passthru.git = pkgs.gitaly.git;
    postBuild = ''
      rm $out/bin/gitaly
      cp ${withRelativeRoot} $out/bin/gitaly
    '';
  };

  workhorse = [
    "${cfg.packages.gitlab-workhorse}/bin/gitlab-workhorse"
    "-listenUmask 0"
    "-listenNetwork unix"
    "-listenAddr /run/gitlab/gitlab-workhorse.socket"
    "-authSocket ${cfg.statePath}/tmp/sockets/gitlab.socket"
    "-authBackend http://localhost:8080${root}"
    "-documentRoot ${cfg.packages.gitlab}/share/gitlab/public"
    "-config ${cfg.statePath}/config/gitlab-workhorse.toml"
    "-secretPath ${cfg.statePath}/.gitlab_workhorse_secret"
  ];
in
{
  rave.secrets.owners = {
    gitlab-root-password = "gitlab";
    gitlab-secret = "gitlab";
    gitlab-db = "gitlab";
    gitlab-otp = "gitlab";
    # An RSA key: it signs ID tokens.
    gitlab-jws = "gitlab";
    gitlab-active-record-primary = "gitlab";
    gitlab-active-record-deterministic = "gitlab";
    gitlab-active-record-salt = "gitlab";
  };

  services.gitlab = {
    enable = true;
    host = config.rave.host;
    port = config.rave.port;
    https = true;
    initialRootEmail = "root@${config.rave.host}";
    initialRootPasswordFile = secret "gitlab-root-password";
    secrets = {
      secretFile = secret "gitlab-secret";
      dbFile = secret "gitlab-db";
      otpFile = secret "gitlab-otp";
      jwsFile = secret "gitlab-jws";
      activeRecordPrimaryKeyFile = secret "gitlab-active-record-primary";
      activeRecordDeterministicKeyFile = secret "gitlab-active-record-deterministic";
      activeRecordSaltFile = secret "gitlab-active-record-salt";
    };
    extraConfig = {
      gitlab = {
        relative_url_root = root;
        email_enabled = false;
        usage_ping_enabled = false;
      };
      gravatar.enabled = false;
    };
    extraEnv.RAILS_RELATIVE_URL_ROOT = root;
    extraShellConfig.gitlab_relative_url_root = root;
    packages.gitaly = gitaly;
    puma.workers = 2;
    sidekiq.concurrency = if config.rave.safeMode then 5 else 10;
  };

  # The module's own arguments, and the one from which workhorse takes the prefix; the socket is still where it asks.
  systemd.services.gitlab-workhorse.serviceConfig.ExecStart = lib.mkForce (toString workhorse);

  # No slash at the end, and no path in proxy_pass: the prefix is kept, for workhorse to see.
  services.nginx.virtualHosts.${config.rave.host}.locations.${root} = {
    proxyPass = "http://unix:/run/gitlab/gitlab-workhorse.socket";
    proxyWebsockets = true;
    extraConfig = ''
      ${proxy}
      proxy_request_buffering off;
    '';
  };

  # The module orders it after gitlab-postgresql.target, which there is not: without this it may look for a database that is still made.
  systemd.services.gitlab-db-config = {
    requires = [ "gitlab-postgresql.service" ];
    after = [ "gitlab-postgresql.service" ];
  };

  # Group, bot, OAuth applications, runner; and the accounts that are handed in as the credential rave.accounts.
  systemd.services.rave-gitlab-setup = {
    description = "What the appliance needs in GitLab";
    wantedBy = [ "multi-user.target" ];
    requires = [ "gitlab.service" ];
    after = [ "gitlab.service" ];
    serviceConfig = {
      Type = "oneshot";
      RemainAfterExit = true;
      User = cfg.user;
      Group = cfg.group;
      WorkingDirectory = "${cfg.statePath}/home";
      TimeoutStartSec = "20min";
      # The secrets of others are read by systemd, as root.
      LoadCredential = map (name: "${name}:${secret name}") [
        "bridge-forge-token"
        "oidc-synapse"
        "oidc-grafana"
        "forge-runner"
      ];
      ImportCredential = "rave.accounts";
      NoNewPrivileges = true;
      PrivateTmp = true;
      ProtectHome = true;
      # The module puts the program, with its environment, into the system's path only.
      ExecStart = "/run/current-system/sw/bin/gitlab-rails runner ${./gitlab-setup.rb} ${config.rave.origin}";
    };
  };

  # The sandboxes' daemon finds a project's repository by the project's path; GitLab keeps it under a hash, and tells the path to
  # hooks only.
  systemd.tmpfiles.settings."20-rave-repositories" = {
    "/var/lib/rave-forge".d = {
      mode = "0750";
      user = cfg.user;
      group = cfg.group;
    };
    "${cfg.statePath}/custom_hooks/post-receive.d/rave-repositories"."L+".argument = toString (
      pkgs.writeShellScript "rave-repositories" ''
        set -eu
        link=/var/lib/rave-forge/$GL_PROJECT_PATH.git
        mkdir -p "$(dirname "$link")"
        ln -sfn "$PWD" "$link"
      ''
    );
  };
}
