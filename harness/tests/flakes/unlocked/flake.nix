# It has an input that its lock file, which is not there, does not know.
{
  inputs.here = {
    url = "path:./here";
    flake = false;
  };

  outputs = { here, ... }: {
    packages.x86_64-linux.disk = here;
  };
}
