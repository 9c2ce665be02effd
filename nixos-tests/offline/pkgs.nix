# The packages that P6 names, as things that only have a name. A name that is not listed is an error, as it would be in nixpkgs.
let
  package =
    name:
    let
      self = {
        type = "derivation";
        name = "${name}-0";
        pname = name;
        version = "0";
        outPath = "/nix/store/00000000000000000000000000000000-${name}";
        override = _: self;
        overrideAttrs =
          f:
          made name (f {
            nativeBuildInputs = [ ];
          });
        withPackages = _: self;
        git = self;
        meta = { };
      };
    in
    self;
  # Something built from attributes, which are looked at.
  made = name: attributes: builtins.deepSeq (shallow attributes) (package name);
  shallow = builtins.mapAttrs (
    _: value: if builtins.isString value || builtins.isList value then builtins.typeOf value else null
  );

  names = [
    "age"
    "bash"
    "cacert"
    "cargo"
    "clippy"
    "coreutils"
    "cpio"
    "curl"
    "dropbear"
    "e2fsprogs"
    "element-web"
    "fakeroot"
    "git"
    "gitaly"
    "gitlab"
    "gitlab-runner"
    "gitlab-workhorse"
    "gnused"
    "grafana"
    "iproute2"
    "jq"
    "kmod"
    "libxml2"
    "linux"
    "matrix-synapse"
    "minisign"
    "mmdebstrap"
    "nftables"
    "nginx"
    "nixfmt"
    "nixfmt-tree"
    "openssh"
    "openssl"
    "pkg-config"
    "postgresql_17"
    "procps"
    "prometheus"
    "prometheus-node-exporter"
    "python3"
    "qemu_kvm"
    "rustc"
    "rustfmt"
    "shadow"
    "shellcheck"
    "sops"
    "systemd"
    "util-linux"
    "which"
    "xz"
  ];
in
lib:
let
  pkgs = builtins.listToAttrs (map (name: lib.nameValuePair name (package name)) names) // {
    inherit lib;
    callPackage =
      file: given:
      let
        function = if builtins.isFunction file then file else import file;
        wanted = builtins.functionArgs function;
        known = builtins.intersectAttrs wanted (pkgs // { inherit pkgs; });
      in
      function (known // given);
    symlinkJoin = attributes: made attributes.name attributes // (attributes.passthru or { });
    runCommand =
      name: attributes: script:
      builtins.seq "${script}" (made name attributes);
    closureInfo = made "closure-info";
    mkShell = made "shell";
    writeShellApplication = attributes: builtins.seq attributes.text (made attributes.name attributes);
    writeShellScript = name: text: builtins.seq text (package name);
    makeModulesClosure = made "modules";
    formats.toml = { }: {
      generate = name: value: builtins.seq (builtins.toJSON value) (package name // { inherit value; });
    };
    rustPlatform.buildRustPackage = attributes: made attributes.pname attributes;
    pkgsStatic = {
      bash = package "bash-static";
      busybox = package "busybox-static";
      dropbear = package "dropbear-static";
      gnutar = package "gnutar-static";
    };
    testers.runNixOSTest =
      test:
      builtins.deepSeq test.nodes.machine.imports (builtins.seq test.testScript (package test.name));
  };
in
pkgs
