# The image as it is handed over: the disk, what is installed in it, and image.json, which names both.
{
  runCommand,
  closureInfo,
  config,
}:
let
  inherit (config.system) build;
  closure = closureInfo { rootPaths = [ build.toplevel ]; };
  manifest = builtins.toJSON {
    schema = 1;
    name = "P6-production";
    inherit (config.rave) version;
    disk = "p6.qcow2";
    disk_format = "qcow2";
    packages = "packages.tsv";
  };
in
runCommand "p6-image"
  {
    inherit manifest;
    passAsFile = [ "manifest" ];
  }
  ''
    mkdir $out
    ln -s ${build.image}/p6.qcow2 $out/p6.qcow2
    cp $manifestPath $out/image.json
    # Name, version or a dash, and hash of every store path in it. The version begins with a digit.
    sed -nE 's|^/nix/store/([0-9a-z]{32})-(.+)$|\2 \1|p' ${closure}/store-paths |
      sed -E 's/^([^ -]+(-[^0-9 -][^ -]*)*)-([0-9][^ ]*) /\1\t\3\t/; t; s/ /\t-\t/' |
      LC_ALL=C sort >$out/packages.tsv
  ''
