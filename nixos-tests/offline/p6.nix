# P6 without nixpkgs: every option that its modules set is one of the table, every value is of its type, and what is made of it is shown.
#
#   nix-instantiate --eval --strict --json --expr 'import ./nixos-tests/offline/p6.nix { }'
{
  # For trying what a mistake looks like.
  also ? { },
}:
let
  inherit (import ./inputs.nix) lib pkgs outputs;
  table = import ./table.nix;
  evaluated = import ./modules.nix {
    inherit lib pkgs table;
    modules = outputs.nixosConfigurations.p6.modules ++ [ also ];
  };
  inherit (evaluated) config errors set;
  counted = builtins.listToAttrs (map (found: lib.nameValuePair found.option true) set);
  mustBeUsed = row: !(row ? default && row.default ? value) && !(counted ? ${row.option});
in
if errors != [ ] then
  throw (builtins.concatStringsSep "\n" errors)
else
  # Every value is looked at, against its type.
  builtins.deepSeq (map (found: found.value) set) {
    options = builtins.attrNames counted;
    # Rows that nothing needs any more.
    unused = map (row: row.option) (builtins.filter mustBeUsed table.rows);
    profile = builtins.fromJSON config.environment.etc."rave/profile.json".text;
    secrets = config.rave.secrets.owners;
    bridge = config.environment.etc."rave/bridge.toml".source.value;
    sandbox =
      if config.rave.fullPipe then config.environment.etc."rave/sandbox.toml".source.value else { };
    nftables = config.networking.nftables.tables.rave.content;
    workhorse = config.systemd.services.gitlab-workhorse.serviceConfig.ExecStart;
    locations = builtins.attrNames config.services.nginx.virtualHosts."rave.local".locations;
    rules = config.security.polkit.extraConfig;
    issuers = map (provider: provider.issuer) config.services.matrix-synapse.settings.oidc_providers;
    order = {
      secrets_before = config.systemd.services.sops-install-secrets.before;
      gitlab_db_config_after = config.systemd.services.gitlab-db-config.after;
    };
    authentication = config.services.postgresql.authentication;
  }
