# What can be said without booting anything: format, lints, unit tests.
{ pkgs }:
let
  inherit (pkgs) lib;
  root = ../..;
  workspace = pkgs.callPackage ../package.nix { pname = "rave-hermetic"; };
  # The workspace with other words for cargo; it leaves nothing but that it went well.
  cargo =
    name: tools: words:
    workspace.overrideAttrs (old: {
      pname = "rave-${name}";
      nativeBuildInputs = old.nativeBuildInputs ++ tools;
      buildPhase = "cargo ${words}";
      installPhase = "touch $out";
    });
in
{
  nix-format =
    pkgs.runCommand "rave-nix-format"
      {
        nativeBuildInputs = [ pkgs.nixfmt ];
        src = lib.fileset.toSource {
          inherit root;
          fileset = lib.fileset.fileFilter (file: file.hasExt "nix") root;
        };
      }
      ''
        find $src -name '*.nix' -exec nixfmt --check {} +
        touch $out
      '';

  rust-format = cargo "rust-format" [ pkgs.rustfmt ] "fmt --all --check";

  clippy = cargo "clippy" [ pkgs.clippy ] "clippy --offline --workspace --all-targets -- -D warnings";

  unit-tests = cargo "unit-tests" [ pkgs.qemu_kvm ] "test --offline --workspace --lib";
}
