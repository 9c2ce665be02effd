# What sandboxes boot: a root disk of static programs, the appliance's own kernel, and an initrd that loads its drivers.
{
  lib,
  runCommand,
  makeModulesClosure,
  pkgsStatic,
  e2fsprogs,
  fakeroot,
  cpio,
  kernel,
  version ? "0.1.0",
}:
let
  drivers = [
    "virtio_pci"
    "virtio_blk"
    "virtio_net"
    "virtio_rng"
    "ext4"
  ];
  modules = makeModulesClosure {
    kernel = lib.getOutput "modules" kernel;
    firmware = kernel;
    rootModules = drivers;
  };
  inherit (pkgsStatic)
    bash
    busybox
    dropbear
    gnutar
    ;
in
runCommand "rave-sandbox-machine-${version}"
  {
    inherit version;
    nativeBuildInputs = [
      cpio
      e2fsprogs
      fakeroot
    ];
    init = ../guest/rave-sandbox/root/init;
    initrdInit = ''
      #!/bin/busybox sh
      /bin/busybox mount -t devtmpfs devtmpfs /dev
      /bin/busybox mount -t proc proc /proc
      for module in ${lib.concatStringsSep " " drivers}; do
        /bin/busybox modprobe "$module"
      done
      for word in $(/bin/busybox cat /proc/cmdline); do
        case $word in
        root=*) root=''${word#root=} ;;
        esac
      done
      tries=0
      until [ -b "$root" ] || [ $tries = 100 ]; do
        /bin/busybox sleep 0.1
        tries=$((tries + 1))
      done
      /bin/busybox mount -t ext4 -o ro "$root" /root || exit 1
      /bin/busybox mount -o move /dev /root/dev
      /bin/busybox umount /proc
      exec /bin/busybox switch_root /root /init
    '';
    passAsFile = [ "initrdInit" ];
  }
  ''
    mkdir $out

    tree=$PWD/tree
    mkdir -p $tree/{bin,dev,etc,proc,run,srv,sys,tmp,usr/bin}
    chmod 1777 $tree/tmp
    ln -s ../srv/home $tree/home
    install -m 0755 ${busybox}/bin/busybox $tree/bin/busybox
    for applet in $(${busybox}/bin/busybox --list); do
      ln -s /bin/busybox $tree/usr/bin/$applet
    done
    ln -s /bin/busybox $tree/bin/sh
    # busybox's own tar leaves long names in git's archives unread.
    rm -f $tree/usr/bin/{bash,busybox,tar}
    install -m 0755 ${dropbear}/bin/dropbear ${gnutar}/bin/tar ${bash}/bin/bash $tree/usr/bin/
    install -m 0755 $init $tree/init
    printf '%s\n' 'root:x:0:0:root:/:/bin/sh' 'dev:x:1000:1000:who works here:/srv/home:/bin/sh' \
      'web:x:1001:1001:web server:/srv/checkout:/usr/bin/false' > $tree/etc/passwd
    printf '%s\n' root:x:0: tty:x:5: dev:x:1000: web:x:1001: > $tree/etc/group
    printf '%s:*:19000:0:99999:7:::\n' root dev web > $tree/etc/shadow
    chmod 0600 $tree/etc/shadow
    echo /bin/sh > $tree/etc/shells
    echo '127.0.0.1 localhost' > $tree/etc/hosts
    printf '%s\n' 'export PATH=/usr/bin:/bin' 'cd /srv/checkout 2>/dev/null || true' > $tree/etc/profile
    printf '%s\n' 'NAME="RAVE sandbox"' ID=rave-sandbox "VERSION_ID=$version" "PRETTY_NAME=\"RAVE sandbox $version\"" > $tree/etc/os-release
    size=$(du --summarize --apparent-size --block-size=1K $tree | cut -f1)
    # Whoever builds has the number 1000 in Nix's sandbox, as has who works in the machine: without fakeroot all would be his.
    fakeroot mke2fs -q -t ext4 -O ^has_journal -m 0 -E root_owner=0:0 -d $tree $out/root.ext4 "$((size * 5 / 4 + 4096))k"

    initrd=$PWD/initrd
    mkdir -p $initrd/{bin,dev,proc,root}
    install -m 0755 ${busybox}/bin/busybox $initrd/bin/busybox
    install -m 0755 $initrdInitPath $initrd/init
    cp -r ${modules}/lib $initrd/lib
    (cd $initrd && find . | sort | cpio --quiet -o -H newc -R 0:0) | gzip -9n > $out/initrd.img

    cp ${kernel}/bzImage $out/vmlinuz
  ''
