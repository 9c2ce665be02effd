# A program of this workspace.
{
  pname,
  lib,
  rustPlatform,
  pkg-config,
  openssl,
}:
let
  root = ../.;
in
rustPlatform.buildRustPackage {
  inherit pname;
  version = (lib.importTOML (root + "/Cargo.toml")).workspace.package.version;
  # Not the Nix files: to change one compiles nothing anew.
  src = lib.fileset.toSource {
    inherit root;
    fileset = lib.fileset.unions [
      (root + "/Cargo.toml")
      (root + "/Cargo.lock")
      (root + "/rustfmt.toml")
      (root + "/guest")
      (root + "/harness")
      (root + "/scenarios")
    ];
  };
  cargoLock.lockFile = root + "/Cargo.lock";
  cargoBuildFlags = [
    "--package"
    pname
  ];
  nativeBuildInputs = [ pkg-config ];
  buildInputs = [ openssl ];
  # checks/source.nix tests the workspace once, not with each program.
  doCheck = false;
  meta.mainProgram = if pname == "rave-hermetic" then "hermetic" else pname;
}
