{
  description = "rave-hermetic: boots the image that ships, asks it every question that matters, and signs what it answered";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  # Attributes are written out, not computed from nixpkgs: whether one exists is then answered without fetching anything.
  outputs =
    { nixpkgs, ... }:
    let
      pkgs = nixpkgs.legacyPackages.x86_64-linux;
    in
    {
      # What harness/setup.sh installs elsewhere. newuidmap is the system's own: it has to be setuid.
      devShells.x86_64-linux.default = pkgs.mkShell {
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
          libxml2 # xmllint
          which
        ];
      };

      formatter.x86_64-linux = pkgs.nixfmt-tree;
    };
}
