# Hands out an image that was built elsewhere: the folder that the file `folder` names.
{
  outputs =
    { self }:
    {
      packages.x86_64-linux.default = derivation {
        name = "handed-out-image";
        system = "x86_64-linux";
        builder = "/bin/sh";
        folder = builtins.readFile ./folder;
        args = [
          "-euc"
          "PATH=/usr/bin:/bin; echo \"handing out $folder\"; cp -rL $folder $out"
        ];
      };
    };
}
