# The image that ships, booted by the very program that is used elsewhere, inside Nix's sandbox. One check for each phase, so that
# Nix's remote builders spread them over machines.
#
# A failed derivation leaves nothing. So a run always succeeds and leaves transcript, JUnit and logs; the check of that run fails
# where the run did, and names the folder.
{
  pkgs,
  hermetic,
  p6-image,
}:
let
  inherit (pkgs) lib;

  # Not `config`: its questions are about the project's tree and git, which are not here.
  phases = [
    "image"
    "boot"
    "health"
    "oidc"
    "agent_control"
    "sandbox"
    "e2e"
    "performance"
    "security"
  ];

  run =
    phase:
    pkgs.runCommand "rave-p6-run-${phase}"
      {
        # The same two that NixOS's own tests ask for.
        requiredSystemFeatures = [
          "kvm"
          "nixos-test"
        ];
        nativeBuildInputs = with pkgs; [
          hermetic
          qemu_kvm
          minisign
          openssh
          openssl
          curl
          jq
          # setsid
          util-linux
          # Clients that nobody here wrote, for what scenarios ask from outside.
          (python3.withPackages (python: [
            python.authlib
            python.python-gitlab
          ]))
        ];
        RAVE_IMAGE = "${p6-image}";
        RAVE_SCENARIOS = ../../scenarios;
        RAVE_CREDENTIALS = ../secrets/credentials;
        RAVE_ACCEL = "kvm";
      }
      ''
        export HOME=$TMPDIR RAVE_ARTIFACTS=$out
        mkdir $out
        status=0
        hermetic run ${phase}:: || status=$?
        echo $status > $out/status
      '';

  check =
    phase:
    pkgs.runCommand "rave-p6-${phase}" { run = run phase; } ''
      status=$(cat $run/status)
      if [ "$status" != 0 ]; then
        echo "phase ${phase} ended with $status; transcript, JUnit and logs: $run" >&2
        exit 1
      fi
      ln -s $run $out
    '';
in
lib.listToAttrs (
  map (phase: lib.nameValuePair "p6-${lib.replaceStrings [ "_" ] [ "-" ] phase}" (check phase)) phases
)
