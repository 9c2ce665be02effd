# The flake's outputs, with stand-ins for its inputs.
let
  lib = import ./lib.nix;
  pkgs = import ./pkgs.nix lib;
  outputs = (import ../../flake.nix).outputs {
    self = outputs;
    nixpkgs = {
      inherit lib;
      legacyPackages.x86_64-linux = pkgs;
    };
    sops-nix.nixosModules.sops = { };
  };
in
{
  inherit lib pkgs outputs;
}
