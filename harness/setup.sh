#!/bin/sh
# Installs what a run needs and this machine lacks. Says what it installs, and does nothing when all is there.
#
#   harness/setup.sh            for `cargo test --test hermetic`
#   harness/setup.sh --test     also what only `make test` needs
#   harness/setup.sh --dry-run  shows what would be done, changes nothing
#
# Knows Debian and its relatives (apt), as root or through sudo. In the flake's dev shell all is there already.
set -eu

# Debian keeps mke2fs, sshd and PostgreSQL's server where an ordinary user does not look.
PATH=$PATH:/usr/sbin:/sbin
for folder in /usr/lib/postgresql/*/bin; do PATH=$PATH:$folder; done
export LC_ALL=C

main() {
    wanted=$(needs) dry_run=
    for argument; do
        case $argument in
        --test) wanted="$wanted
$(test_needs)" ;;
        --dry-run) dry_run=yes ;;
        *) die "usage: $0 [--test] [--dry-run]" ;;
        esac
    done

    command -v cargo >/dev/null ||
        die "cargo is missing: get Rust from https://rustup.rs, then run this again"
    missing=$(missing_of "$wanted")
    [ -n "$missing" ] || exit 0

    command -v apt-get >/dev/null || explain_by_hand
    install_packages "$(packages_of "$missing")"
    [ -z "$dry_run" ] || exit 0
    missing=$(missing_of "$wanted")
    [ -z "$missing" ] || die "installed, but still not found: $(proofs_of "$missing")"
}

# What proves that a thing is there, and the Debian package that brings it. A proof is a command, or
# `python:MODULE`, `packaged:MODULE` (which the first Python knows, or the distribution's own), `ruby:GEM`, or `pkg-config:LIBRARY`.
needs() {
    cat <<'TABLE'
qemu-system-x86_64  qemu-system-x86
qemu-img            qemu-utils
mmdebstrap          mmdebstrap
newuidmap           uidmap
mke2fs              e2fsprogs
minisign            minisign
ssh                 openssh-client
ssh-keygen          openssh-client
openssl             openssl
curl                curl
git                 git
cc                  build-essential
make                build-essential
pkg-config          pkg-config
pkg-config:openssl  libssl-dev
python3             python3
python:pip          python3-pip
python:ensurepip    python3-venv
packaged:gitlab     python3-gitlab
packaged:authlib    python3-authlib
cpio                cpio
jq                  jq
xz                  xz-utils
TABLE
}

test_needs() {
    cat <<'TABLE'
sshd                openssh-server
xmllint             libxml2-utils
shellcheck          shellcheck
nix                 nix-bin
initdb              postgresql
puma                puma
ruby:doorkeeper-openid_connect  ruby-doorkeeper-openid-connect
ruby:actionpack     ruby-actionpack
ruby:activerecord   ruby-activerecord
ruby:pg             ruby-pg
ruby:bcrypt         ruby-bcrypt
TABLE
}

missing_of() {
    echo "$1" | while read -r proof package; do
        there "$proof" || echo "$proof $package"
    done
}

there() {
    case $1 in
    python:*) python3 -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec(sys.argv[1]) is None)' "${1#*:}" ;;
    packaged:*) there "python:${1#*:}" || (PATH=/usr/bin:$PATH && there "python:${1#*:}") ;;
    ruby:*) ruby -e 'Gem::Specification.find_by_name(ARGV[0])' "${1#*:}" ;;
    pkg-config:*) pkg-config --exists "${1#*:}" ;;
    *) command -v "$1" ;;
    esac >/dev/null 2>&1
}

proofs_of() { echo "$1" | awk '{ printf "%s%s", sep, $1; sep = ", " }'; }
packages_of() { echo "$1" | awk '!seen[$2]++ { printf "%s%s", sep, $2; sep = " " }'; }

explain_by_hand() {
    echo "setup: this system has no apt; missing (with the name of the Debian package):" >&2
    echo "$missing" | awk '{ printf "  %-20s %s\n", $1, $2 }' >&2
    die "install these, or enter the flake's dev shell with 'nix develop', then run this again"
}

install_packages() {
    packages=$1
    if [ "$(id -u)" = 0 ]; then
        as_root=
    elif command -v sudo >/dev/null; then
        as_root=sudo
    else
        die "missing: $packages; install them as root, or install sudo"
    fi

    say "installing${as_root:+ with sudo}: $packages"
    apt_get -q update || say "'apt-get update' failed; going on with the package lists that are here"
    if [ -n "$dry_run" ] && ! apt-cache show minisign >/dev/null 2>&1; then
        say "apt has no package lists yet; what it would do shows after 'apt-get update'"
        exit 0
    fi
    case " $packages " in
    *" qemu-system-x86 "*) qemu_fits || qemu_from_backports ;;
    esac
    keep_services_stopped
    # shellcheck disable=SC2086 # a list of words
    apt_get -q install -y --no-install-recommends $packages
}

apt_get() {
    if [ -n "$dry_run" ]; then
        case " $* " in *" update "*) return ;; esac
        apt-get --simulate "$@"
    else
        $as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 "$@" >&2
    fi
}

# The emulator and the tools must be of one version. A machine whose qemu-utils came from backports can lack the
# backports source, and then apt either refuses or takes an emulator years older than the tools.
qemu_fits() {
    apt-get --simulate install --no-install-recommends qemu-system-x86 >/dev/null 2>&1 || return 1
    tools=$(dpkg-query -W -f '${Version}' qemu-utils 2>/dev/null) || return 0
    emulator=$(apt-cache policy qemu-system-x86 | awk '$1 == "Candidate:" { print $2 }')
    dpkg --compare-versions "$emulator" ge "${tools:-0}"
}

# From <codename>-backports, which is added from the mirror that apt already uses unless it is configured.
qemu_from_backports() {
    # shellcheck source=/dev/null
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    backports=$codename-backports
    say "qemu-system-x86 of $codename does not fit the qemu-utils here: taking it from $backports"
    [ -n "$(package_lists "$backports" CODENAME)" ] || add_backports
    apt_get -q install -y --no-install-recommends -t "$backports" qemu-system-x86
}

add_backports() {
    mirror=$(package_lists "$codename" REPO_URI)
    entry=$(package_lists "$codename" SOURCESENTRY) # FILE:NUMBER
    [ -n "$mirror" ] || die "apt has no source for '$codename' that $backports could be taken from"
    key=$(sed -n 's/.*[Ss]igned-[Bb]y[:=] *\(\/[^] ]*\).*/\1/p' "${entry%:*}" | head -n 1)

    source_file=/etc/apt/sources.list.d/rave-hermetic-backports.sources
    say "adding $backports of $mirror in $source_file"
    [ -z "$dry_run" ] || exit 0 # what apt would do cannot be shown without the source
    {
        printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\n' "$mirror" "$backports"
        [ -z "$key" ] || echo "Signed-By: $key"
    } | $as_root tee "$source_file" >/dev/null
    apt_get -q update
}

# One field of the first package list that apt has for a release.
package_lists() {
    apt-get indextargets --format "\$($2)" 'Created-By: Packages' "Codename: $1" | head -n 1
}

# The tests start an sshd and a PostgreSQL of their own; installing the packages must not give the machine one. dpkg asks
# policy-rc.d before it starts anything.
keep_services_stopped() {
    services=
    case " $packages " in *" openssh-server "*) services="ssh.service" ;; esac
    case " $packages " in *" postgresql "*) services="$services postgresql.service" ;; esac
    [ -n "$services" ] || return 0
    say "for the tests only, and off on this machine: ${services# }"
    [ -z "$dry_run" ] || return 0
    policy=/usr/sbin/policy-rc.d
    trap 'end_of_install' EXIT
    trap 'exit 130' INT TERM
    [ -e $policy ] || {
        printf '#!/bin/sh\nexit 101\n' | $as_root tee $policy >/dev/null
        $as_root chmod 755 $policy
        own_policy=yes
    }
}

end_of_install() {
    [ -z "${own_policy:-}" ] || $as_root rm -f "$policy"
    if command -v systemctl >/dev/null; then
        for service in $services; do $as_root systemctl --quiet disable "$service" 2>/dev/null || :; done
    fi
}

say() { echo "setup: $*" >&2; }
die() {
    say "$*"
    exit 1
}

main "$@"
