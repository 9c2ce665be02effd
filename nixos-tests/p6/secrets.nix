# Secrets: encrypted in one file of the image, opened by an age key that is handed to the machine as the systemd credential
# `rave.age-key`. Nothing readable lies in the store; what is opened lies in memory.
#
# /etc/rave/secrets/NAME is a link to the secret, for each service to read as itself.
{ config, lib, ... }:
let
  keyFile = "/run/rave/age.key";
in
{
  options.rave.secrets.file = lib.mkOption {
    type = lib.types.path;
    default = ../secrets/test.yaml;
    description = ''
      The file of secrets, encrypted with sops for the machine's age key. The default is for tests: its key is public.
      nixos-tests/secrets/new makes one of your own.
    '';
  };

  options.rave.secrets.owners = lib.mkOption {
    type = lib.types.attrsOf lib.types.str;
    default = { };
    description = "The name of each secret, and the account that reads it.";
  };

  config = {
    sops = {
      defaultSopsFile = config.rave.secrets.file;
      age.keyFile = keyFile;
      # The host's own keys do not exist at the first boot, and open nothing later.
      age.sshKeyPaths = [ ];
      gnupg.sshKeyPaths = [ ];
      # A unit, not an activation script: those run before any unit of ours could bring the key.
      useSystemdActivation = true;
      secrets = lib.mapAttrs (name: owner: {
        inherit owner;
        path = "/etc/rave/secrets/${name}";
      }) config.rave.secrets.owners;
    };

    # sops-nix lets sysinit.target want this unit, not wait for it: services would start before their secrets are there.
    systemd.services.sops-install-secrets.before = [ "sysinit.target" ];

    systemd.services.rave-age-key = {
      description = "The key that opens this machine's secrets";
      requiredBy = [ "sops-install-secrets.service" ];
      before = [
        "sops-install-secrets.service"
        "shutdown.target"
      ];
      conflicts = [ "shutdown.target" ];
      unitConfig.DefaultDependencies = false;
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
        ImportCredential = "rave.age-key";
        UMask = "0077";
      };
      script = ''
        key=$CREDENTIALS_DIRECTORY/rave.age-key
        if [ ! -s "$key" ]; then
          echo "no credential rave.age-key was handed to this machine: its secrets stay closed" >&2
          exit 1
        fi
        install -D -m 0400 "$key" ${keyFile}
      '';
    };

    systemd.tmpfiles.settings."10-rave-secrets"."/etc/rave/secrets".d = {
      mode = "0751";
      user = "root";
      group = "root";
    };
  };
}
