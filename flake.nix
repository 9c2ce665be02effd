{
  description = "rave-hermetic: boots the image that ships, asks it every question that matters, and signs what it answered";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";
  inputs.sops-nix = {
    url = "github:Mic92/sops-nix";
    inputs.nixpkgs.follows = "nixpkgs";
  };

  # Names of outputs are written out, not computed from nixpkgs: whether one exists is then answered without fetching anything.
  outputs =
    {
      self,
      nixpkgs,
      sops-nix,
    }:
    let
      pkgs = nixpkgs.legacyPackages.x86_64-linux;
    in
    {
      # The appliance.
      nixosModules = {
        p6 = {
          imports = [
            ./nixos-tests/p6
            sops-nix.nixosModules.sops
          ];
          rave.packages = {
            bridge = self.packages.x86_64-linux.rave-bridge;
            sandbox = self.packages.x86_64-linux.rave-sandbox;
          };
        };
        default = self.nixosModules.p6;
      };

      nixosConfigurations.p6 = nixpkgs.lib.nixosSystem {
        modules = [
          self.nixosModules.p6
          { nixpkgs.hostPlatform = "x86_64-linux"; }
        ];
      };

      packages.x86_64-linux = {
        p6-image = pkgs.callPackage ./nixos-tests/image.nix {
          inherit (self.nixosConfigurations.p6) config;
        };
        hermetic = pkgs.callPackage ./nixos-tests/package.nix { pname = "rave-hermetic"; };
        rave-bridge = pkgs.callPackage ./nixos-tests/package.nix { pname = "rave-bridge"; };
        rave-sandbox = pkgs.callPackage ./nixos-tests/package.nix { pname = "rave-sandbox"; };
        default = self.packages.x86_64-linux.hermetic;
      };

      # `nix flake check`: what can be said without booting, the modules one by one, and the image that ships, phase by phase.
      checks.x86_64-linux =
        import ./nixos-tests/checks/source.nix { inherit pkgs; }
        // import ./nixos-tests/checks/modules.nix { inherit pkgs sops-nix; }
        // import ./nixos-tests/checks/acceptance.nix {
          inherit pkgs;
          inherit (self.packages.x86_64-linux) hermetic p6-image;
        };

      # `nix run .` is the smoke run.
      apps.x86_64-linux.default = {
        type = "app";
        program = "${
          pkgs.callPackage ./nixos-tests/smoke.nix {
            inherit (self.packages.x86_64-linux) hermetic p6-image;
          }
        }/bin/rave-smoke";
        meta.description = "Boots P6, asks everything, and verifies the signed transcript";
      };

      devShells.x86_64-linux.default = pkgs.callPackage ./nixos-tests/shell.nix { };

      formatter.x86_64-linux = pkgs.nixfmt-tree;
    };
}
