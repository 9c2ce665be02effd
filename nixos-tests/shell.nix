# What harness/setup.sh installs elsewhere, and what it takes to make secrets. newuidmap is the system's own: it has to be setuid.
{ mkShell, pkgs }:
mkShell {
  packages = with pkgs; [
    cargo
    rustc
    clippy
    rustfmt
    qemu_kvm
    minisign
    openssh
    openssl
    pkg-config
    mmdebstrap
    e2fsprogs
    util-linux
    procps
    (python3.withPackages (python: [ python.pip ]))
    cpio
    xz
    jq
    curl
    git
    shellcheck
    which
    nixfmt
    age
    sops
  ];
}
