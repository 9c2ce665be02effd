# As much of nixpkgs' lib as P6's modules use, for an evaluation without nixpkgs. Names and meanings are theirs; what is not here is
# not known, and using it fails. `nixpkgs-lib` of offline.nix takes the real one.
let
  inherit (builtins) attrNames filter listToAttrs;
  # Marks that options, conditions and priorities leave in a configuration; modules.nix reads them.
  mark = _type: attributes: attributes // { inherit _type; };
in
rec {
  inherit (builtins) concatStringsSep listToAttrs replaceStrings;
  nameValuePair = name: value: { inherit name value; };
  mapAttrs = builtins.mapAttrs;
  mapAttrs' = f: set: listToAttrs (map (name: f name set.${name}) (attrNames set));
  filterAttrs =
    keep: set:
    listToAttrs (
      map (name: nameValuePair name set.${name}) (filter (name: keep name set.${name}) (attrNames set))
    );
  optionalAttrs = condition: set: if condition then set else { };
  getExe = package: "${package}/bin/${package.meta.mainProgram or package.pname}";
  getExe' = package: program: "${package}/bin/${program}";
  getOutput = _: package: package;
  getVersion = package: package.version;
  importTOML = path: builtins.fromTOML (builtins.readFile path);
  fileset = {
    toSource = { root, fileset }: root;
    unions = filesets: filesets;
    fileFilter = _: root: root;
  };

  mkOption = mark "option";
  mkIf = condition: content: mark "if" { inherit condition content; };
  mkForce = content: mark "override" { inherit content; };

  types = {
    bool = "bool";
    str = "str";
    port = "port";
    path = "path";
    package = "package";
    attrsOf = type: "attrsOf ${type}";
  };

  # The stand-in for NixOS itself.
  nixosSystem =
    { modules }:
    {
      config.system.build.image = "stand-in";
      config.system.build.toplevel = "stand-in";
      config.rave.version = "stand-in";
      inherit modules;
    };
}
