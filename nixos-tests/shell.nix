# What harness/setup.sh installs elsewhere, and what it takes to make secrets. newuidmap is the system's own: it has to be setuid.
# The Ruby libraries that the tests of guest/identity need are Debian's only.
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
    (python3.withPackages (python: [
      python.authlib
      python.pip
      python.python-gitlab
    ]))
    postgresql_17
    cpio
    xz
    jq
    libxml2
    curl
    git
    shellcheck
    which
    nixfmt
    age
    sops
  ];
}
