# Derivations that give an image, and all the ways in which one may not. They need nothing but this machine's own shell.
{
  outputs =
    { self }:
    let
      build =
        name: script:
        derivation {
          inherit name;
          system = "x86_64-linux";
          builder = "/bin/sh";
          args = [
            "-euc"
            "PATH=/usr/bin:/bin; ${disk} ${script}"
          ];
        };

      # 1 MiB with a boot sector.
      disk = ''
        disk() {
          head -c 510 /dev/zero > "$1"
          printf '\125\252' >> "$1"
          truncate -s 1M "$1"
        }
      '';
    in
    {
      packages.x86_64-linux = {
        disk = build "disk" ''
          echo "one line" >&2
          echo "cores: $NIX_BUILD_CORES"
          mkdir $out
          disk $out/p6.raw
        '';

        bare = build "bare.raw" "disk $out";

        described = build "described" ''
          mkdir $out
          disk $out/any-name
          echo '{"schema":1,"name":"x","version":"1","disk":"any-name","disk_format":"raw","built_seconds":77}' > $out/image.json
        '';

        fails = build "fails" ''
          for line in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do echo "line $line"; done
          echo "no such luck" >&2
          exit 3
        '';

        hangs = build "hangs" ''
          echo "waiting for the end"
          exec sleep 7654321
        '';

        empty = build "empty" "mkdir $out";

        two = build "two" ''
          mkdir $out
          disk $out/a.raw
          disk $out/b.raw
        '';

        no-disk = build "no-disk" ''
          mkdir $out
          echo text > $out/p6.raw
        '';

        wrong = throw "this is how it is meant";

        # No machine has it.
        unbuildable = derivation {
          name = "unbuildable";
          system = "x86_64-linux";
          builder = "/bin/sh";
          requiredSystemFeatures = [ "flying" ];
        };
      };
    };
}
