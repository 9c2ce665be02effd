# P6 on the real lib of nixpkgs, and with sops-nix's own module where it is at hand; options of NixOS are still those of the table.
#
#   nix-instantiate --eval --strict --json --expr 'import ./nixos-tests/offline/nixpkgs-lib.nix { nixpkgs = <nixpkgs>; }'
{
  # A folder with nixpkgs' lib.
  nixpkgs,
  # The same of sops-nix.
  sops-nix ? null,
  also ? { },
}:
let
  lib = import (nixpkgs + "/lib");
  pkgs = import ./pkgs.nix lib // {
    # What sops-nix's defaults name.
    gnupg = pkgs.age;
    writeText = _: _: pkgs.age;
    writeTextFile = _: pkgs.age;
  };
  table = import ./table.nix;
  inherit (lib) mkOption types;

  declaredElsewhere = row: sops-nix != null && lib.hasPrefix "sops-nix" row.source;

  # Every option may be left out: what must be set is the business of the module that declares it.
  option =
    node:
    mkOption {
      type = types.nullOr (real node);
      default =
        if !(node ? default) then
          null
        else if node.default ? package then
          pkgs.${node.default.package}
        else if node.default ? kernel then
          { kernel = pkgs.linux; }
        else if node.default ? perName || node.default ? secrets then
          "/run/secrets/rendered/x"
        else
          node.default;
    };

  # Merging is the real thing; what a value may be is the table's word.
  real =
    node:
    let
      base =
        if node.type == "lines" then
          types.lines
        else if lib.hasPrefix "listOf" node.type then
          types.listOf types.raw
        else if lib.hasPrefix "attrsOf" node.type || node.type == "attrs" then
          types.attrsOf types.anything
        else if node.type == "package" then
          types.package
        else
          types.anything;
    in
    types.addCheck base (table.holds node.type);

  options = node: builtins.mapAttrs (_: branch) (removeAttrs node.children [ "<name>" ]);
  branch =
    node:
    if node ? type then
      option node
    else if node.children ? "<name>" then
      mkOption {
        default = { };
        type = types.attrsOf (nested node.children."<name>");
      }
    else if node.children ? "*" then
      mkOption {
        default = [ ];
        type = types.listOf (nested node.children."*");
      }
    else
      options node;
  nested =
    node:
    if node ? type then
      real node
    else if node.children ? "<name>" then
      types.attrsOf (nested node.children."<name>")
    else
      types.submodule { options = options node; };

  evaluated = lib.evalModules {
    specialArgs = {
      inherit pkgs;
      modulesPath = ./modules;
    };
    modules = [
      ../p6
      {
        options = builtins.mapAttrs (_: branch) (table.without declaredElsewhere).children // {
          assertions = mkOption {
            type = types.listOf types.raw;
            default = [ ];
          };
        };
        config.rave.packages = {
          bridge = pkgs.git;
          sandbox = pkgs.git;
        };
      }
      also
    ]
    ++ lib.optionals (sops-nix != null) [
      (import (sops-nix + "/modules/sops"))
      {
        # What it sets besides, and accounts that NixOS's own modules make.
        options.system.build = mkOption { type = types.attrsOf types.raw; };
        options.system.activationScripts = mkOption { type = types.attrsOf types.raw; };
        config = {
          sops.package = pkgs.sops;
          sops.validationPackage = pkgs.sops;
          users.users = lib.genAttrs [ "gitlab" "grafana" "matrix-synapse" "root" ] (group: {
            inherit group;
          });
        };
      }
    ];
  };

  # What somebody set, not what is so by default.
  defined =
    lib.filter (option: option.isDefined && option.highestPrio < (lib.mkOptionDefault null).priority)
      (
        lib.collect lib.isOption (
          # Messages of assertions are for those that fail.
          removeAttrs evaluated.options [
            "_module"
            "assertions"
          ]
        )
      );
  look = option: builtins.deepSeq option.value (lib.showOption option.loc);
  failed = lib.filter (assertion: !assertion.assertion) evaluated.config.assertions;
in
if failed != [ ] then
  throw (lib.concatMapStringsSep "\n" (assertion: assertion.message) failed)
else
  {
    lib = lib.version;
    options = map look defined;
  }
