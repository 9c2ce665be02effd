# The smoke run, without the project's folder: boots P6, asks everything, and verifies what is left with stock minisign.
{
  writeShellApplication,
  hermetic,
  p6-image,
  qemu_kvm,
  minisign,
  openssh,
  openssl,
  curl,
  git,
  jq,
  util-linux,
  python3,
}:
writeShellApplication {
  name = "rave-smoke";
  runtimeInputs = [
    hermetic
    qemu_kvm
    minisign
    openssh
    openssl
    curl
    git
    jq
    util-linux
    (python3.withPackages (python: [
      python.authlib
      python.python-gitlab
    ]))
  ];
  text = ''
    export RAVE_IMAGE=''${RAVE_IMAGE:-nix:${p6-image}}
    export RAVE_SCENARIOS=''${RAVE_SCENARIOS:-${../scenarios}}
    export RAVE_ARTIFACTS=''${RAVE_ARTIFACTS:-$PWD/artifacts}
    export RAVE_CREDENTIALS=''${RAVE_CREDENTIALS:-${./secrets/credentials}}
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    status=0
    hermetic run "$@" 2> >(tee "$log" >&2) || status=$?
    transcript=$(sed -n 's/^transcript: //p' "$log" | tail -n 1)
    if [ -z "$transcript" ]; then
      echo "rave-smoke: the run left no transcript" >&2
      exit $((status ? status : 1))
    fi
    key=''${transcript%.json}.pub
    if [ ! -e "$key" ]; then
      key=''${RAVE_SIGNING_KEY:-}
      key=''${key%.*}.pub
    fi
    minisign -Vm "$transcript" -p "$key"
    exit "$status"
  '';
}
