# rave-bridge: takes !rave commands from Matrix rooms. Its agents are systemd units of a fixed list, and polkit lets it touch no other.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.rave;
  bridge = lib.getExe' cfg.packages.bridge "rave-bridge";
  secret = name: "/etc/rave/secrets/${name}";
  agents = [
    "orchestrator"
    "planner"
    "coder"
    "reviewer"
    "tester"
    "documenter"
    "security"
    "deployer"
    "monitor"
  ];

  # What any of our own services may do: little.
  confined = {
    NoNewPrivileges = true;
    CapabilityBoundingSet = "";
    LockPersonality = true;
    MemoryDenyWriteExecute = true;
    NotifyAccess = "main";
    OOMPolicy = "stop";
    PrivateDevices = true;
    PrivateTmp = true;
    ProtectClock = true;
    ProtectControlGroups = true;
    ProtectHome = true;
    ProtectHostname = true;
    ProtectKernelLogs = true;
    ProtectKernelModules = true;
    ProtectKernelTunables = true;
    ProtectProc = "invisible";
    ProtectSystem = "strict";
    RestrictNamespaces = true;
    RestrictRealtime = true;
    RestrictSUIDSGID = true;
    SystemCallArchitectures = "native";
    SystemCallErrorNumber = "EPERM";
    SystemCallFilter = [
      "@system-service"
      "~@privileged @resources"
    ];
  };
in
{
  # For operators: the audit log is verified with it.
  environment.systemPackages = [ cfg.packages.bridge ];

  users.groups.rave-bridge = { };
  users.groups.rave-sandbox = { };
  users.users.rave-bridge = {
    isSystemUser = true;
    group = "rave-bridge";
    extraGroups = [ "rave-sandbox" ];
  };

  rave.secrets.owners = {
    bridge-as-token = "rave-bridge";
    bridge-hs-token = "rave-bridge";
    bridge-audit-key = "rave-bridge";
    bridge-forge-token = "rave-bridge";
  };

  sops.templates."synapse-appservice.yaml" = {
    owner = "matrix-synapse";
    path = secret "synapse-appservice.yaml";
    content = builtins.toJSON {
      id = "rave";
      url = "http://127.0.0.1:9000";
      as_token = config.sops.placeholder.bridge-as-token;
      hs_token = config.sops.placeholder.bridge-hs-token;
      sender_localpart = "rave";
      rate_limited = false;
      namespaces = {
        users = [ ];
        aliases = [ ];
        rooms = [ ];
      };
    };
  };

  environment.etc."rave/bridge.toml".source = (pkgs.formats.toml { }).generate "bridge.toml" {
    listen = "127.0.0.1:9000";
    server_name = cfg.host;
    user = "rave";
    audit = "/var/lib/rave-bridge/audit.jsonl";
    systemctl = "${config.systemd.package}/bin/systemctl";
    secrets = {
      as_token = secret "bridge-as-token";
      hs_token = secret "bridge-hs-token";
      audit_key = secret "bridge-audit-key";
      forge_token = secret "bridge-forge-token";
    };
    homeserver = {
      url = "http://127.0.0.1:8008";
      appservice = "rave";
    };
    forge = {
      url = "${cfg.origin}/gitlab/api/v4";
      ca = "/etc/rave/ca.crt";
      group = "rave";
    };
    directory = {
      database = "host=/run/postgresql user=rave_bridge dbname=synapse";
      provider = "oidc-gitlab";
    };
    sandbox = {
      socket = "/run/rave-sandbox/api.sock";
      life_seconds = 1200;
      ready_seconds = 600;
      watch_seconds = 5;
    };
    limits = {
      sender_per_minute = 30;
      sender_burst = 5;
      room_per_minute = 60;
      denials = 5;
      ignore_seconds = 300;
      role_cache_seconds = 30;
    };
    rooms.allowed = [ ];
  };

  systemd.services = {
    # Synapse makes the table when it first starts.
    rave-bridge-directory = {
      description = "Let the bridge read who signed in as whom";
      requires = [
        "matrix-synapse.service"
        "rave-databases.service"
      ];
      after = [
        "matrix-synapse.service"
        "rave-databases.service"
      ];
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
        User = "postgres";
        Group = "postgres";
        ExecStart = "${config.services.postgresql.package}/bin/psql -XAtq -v ON_ERROR_STOP=1 -d synapse -c 'GRANT SELECT ON user_external_ids TO rave_bridge'";
      };
    };

    rave-bridge = {
      description = "The Matrix bridge";
      wantedBy = [ "multi-user.target" ];
      requires = [ "rave-bridge-directory.service" ];
      wants = [ "rave-gitlab-setup.service" ];
      after = [
        "rave-bridge-directory.service"
        "rave-gitlab-setup.service"
        "nginx.service"
      ];
      serviceConfig = confined // {
        Type = "notify";
        User = "rave-bridge";
        Group = "rave-bridge";
        ExecStart = "${bridge} serve";
        # From then on the kernel lets nobody change what is in the audit log, not even the bridge.
        ExecStartPost = "+-${pkgs.e2fsprogs}/bin/chattr +a /var/lib/rave-bridge/audit.jsonl";
        Restart = "on-failure";
        RestartSec = "2s";
        # Wrong settings stay wrong, and a broken audit log is for people to look at.
        RestartPreventExitStatus = 78;
        StateDirectory = "rave-bridge";
        StateDirectoryMode = "0750";
        UMask = "0027";
        RestrictAddressFamilies = [
          "AF_UNIX"
          "AF_INET"
          "AF_INET6"
        ];
        IPAddressDeny = "any";
        IPAddressAllow = "localhost";
      };
    };

    "rave-agent@" = {
      description = "Agent %i";
      serviceConfig = confined // {
        Type = "notify";
        DynamicUser = true;
        ExecStart = "${bridge} agent %i";
        Restart = "on-failure";
        RestartSec = "2s";
        WatchdogSec = "30s";
        # The heartbeat, for anybody to read.
        RuntimeDirectory = "rave-agent-%i";
        RuntimeDirectoryMode = "0755";
        UMask = "0022";
        RestrictAddressFamilies = [ "AF_UNIX" ];
        PrivateNetwork = true;
        IPAddressDeny = "any";
        InaccessiblePaths = "-/etc/rave/secrets";
      };
    };
  };

  security.polkit.enable = true;
  security.polkit.extraConfig = lib.mkIf cfg.fullPipe ''
    polkit.addRule(function(action, subject) {
      if (action.id !== "org.freedesktop.systemd1.manage-units" || subject.user !== "rave-bridge") {
        return polkit.Result.NOT_HANDLED;
      }
      var units = ${builtins.toJSON (map (agent: "rave-agent@${agent}.service") agents)};
      var known = units.indexOf(action.lookup("unit")) >= 0;
      return known && ["start", "stop"].indexOf(action.lookup("verb")) >= 0 ? polkit.Result.YES : polkit.Result.NO;
    });
  '';
}
