# The flake's own shape: every output there is, and that each can be made.
#
#   nix-instantiate --eval --strict --json --expr 'import ./nixos-tests/offline/outputs.nix'
let
  inherit (import ./inputs.nix) outputs;
in
{
  outputs = builtins.attrNames outputs;
  packages = builtins.mapAttrs (_: package: package.name or package) outputs.packages.x86_64-linux;
  configurations = builtins.attrNames outputs.nixosConfigurations;
  modules = builtins.attrNames outputs.nixosModules;
  checks = builtins.mapAttrs (_: check: check.name) outputs.checks.x86_64-linux;
  app = outputs.apps.x86_64-linux.default.program;
  shell = outputs.devShells.x86_64-linux.default.name;
  formatter = outputs.formatter.x86_64-linux.name;
  inherit (import ../../flake.nix) inputs;
}
