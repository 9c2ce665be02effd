# Its input has to be downloaded.
{
  inputs.elsewhere.url = "https://elsewhere.invalid/archive.tar.gz";

  outputs = { elsewhere, ... }: {
    packages.x86_64-linux.disk = elsewhere.disk;
  };
}
