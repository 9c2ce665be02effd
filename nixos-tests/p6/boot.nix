# Kernel, boot loader and disk. BIOS and GRUB: nothing but the disk file is needed to boot it.
{ modulesPath, ... }:
{
  imports = [
    (modulesPath + "/profiles/qemu-guest.nix")
    # Gives the root file system, the boot loader, and system.build.image.
    (modulesPath + "/virtualisation/disk-image.nix")
  ];

  image.baseName = "p6";
  image.format = "qcow2";
  image.efiSupport = false;
  # The size of the disk; the file holds what is written to it.
  virtualisation.diskSize = 32768;

  boot.loader.timeout = 0;
  # The console named last is /dev/console.
  boot.kernelParams = [
    "console=tty0"
    "console=ttyS0,115200"
  ];
  # systemd looks for credentials before the root is there, and loads what it needs for that only from the initrd.
  boot.initrd.availableKernelModules = [
    "dmi_sysfs"
    "qemu_fw_cfg"
  ];
}
