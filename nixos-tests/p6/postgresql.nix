# PostgreSQL: one database for each service, over the socket only. GitLab's module makes its own database.
{ lib, pkgs, ... }:
{
  services.postgresql = {
    enable = true;
    # What GitLab 19 needs; a newer stateVersion must not change it.
    package = pkgs.postgresql_17;
    # Synapse takes no other collation, and the others do not mind.
    initdbArgs = [
      "--locale=C"
      "--encoding=UTF8"
    ];
    ensureDatabases = [
      "synapse"
      "grafana"
    ];
    ensureUsers = [
      {
        name = "synapse";
        ensureDBOwnership = true;
      }
      {
        name = "grafana";
        ensureDBOwnership = true;
      }
      # Reads one table of Synapse's: see bridge.nix.
      { name = "rave_bridge"; }
    ];
    # As who the kernel says one is, each role to its own database; the superuser to all.
    authentication = lib.mkForce ''
      # TYPE  DATABASE  USER         METHOD
      local   all       postgres     peer map=rave
      local   gitlab    gitlab       peer map=rave
      local   synapse   synapse      peer map=rave
      local   synapse   rave_bridge  peer map=rave
      local   grafana   grafana      peer map=rave
    '';
    identMap = ''
      # MAP   SYSTEM USER      ROLE
      rave    postgres         postgres
      rave    gitlab           gitlab
      rave    matrix-synapse   synapse
      rave    rave-bridge      rave_bridge
      rave    grafana          grafana
    '';
    settings = {
      listen_addresses = lib.mkForce "";
      max_connections = 100;
      shared_buffers = "256MB";
    };
  };

  # It is asked over its socket only.
  systemd.services.postgresql.serviceConfig.RestrictAddressFamilies = lib.mkForce "AF_UNIX";

  # pg_hba.conf is the first door, this the second. Owners keep what is theirs.
  systemd.services.rave-databases = {
    description = "Close each database to all roles but its own";
    wantedBy = [ "multi-user.target" ];
    requires = [
      "postgresql.target"
      "gitlab-postgresql.service"
    ];
    after = [
      "postgresql.target"
      "gitlab-postgresql.service"
    ];
    serviceConfig = {
      Type = "oneshot";
      RemainAfterExit = true;
      User = "postgres";
      Group = "postgres";
      ExecStart = "${pkgs.postgresql_17}/bin/psql -XAtq -v ON_ERROR_STOP=1 -d postgres -c 'REVOKE ALL ON DATABASE gitlab, synapse, grafana, postgres, template1 FROM PUBLIC' -c 'GRANT CONNECT ON DATABASE synapse TO rave_bridge'";
    };
  };
}
