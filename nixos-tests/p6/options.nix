# What the modules share: names and budgets, and the programs of this project.
{ config, lib, ... }:
let
  cfg = config.rave;
in
{
  options.rave = {
    version = lib.mkOption {
      type = lib.types.str;
      default = "0.1.0";
      description = "The appliance's version.";
    };

    host = lib.mkOption {
      type = lib.types.str;
      default = "rave.local";
      description = "The name under which everything is reached. Part of every Matrix user's id: it cannot change later.";
    };

    port = lib.mkOption {
      type = lib.types.port;
      default = 3002;
      description = "The only port besides SSH that answers from outside.";
    };

    origin = lib.mkOption {
      type = lib.types.str;
      default = "https://${cfg.host}:${toString cfg.port}";
      readOnly = true;
      description = "What every issuer, redirect and cookie is bound to.";
    };

    safeMode = lib.mkOption {
      type = lib.types.bool;
      default = true;
      description = "Budgets for two cores and 8 GiB; without it, for four cores and 16 GiB.";
    };

    fullPipe = lib.mkOption {
      type = lib.types.bool;
      default = true;
      description = "Run pipelines, agents and sandboxes; without it the forge, the chat and the bridge answer, and nothing is run for anybody.";
    };

    packages = {
      bridge = lib.mkOption {
        type = lib.types.package;
        description = "The package of rave-bridge.";
      };

      sandbox = lib.mkOption {
        type = lib.types.package;
        description = "The package of rave-sandbox.";
      };
    };
  };
}
