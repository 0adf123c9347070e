#!/bin/sh
# Installs what the failover drill needs beyond scripts/setup.sh: Patroni, etcd, and the Python module
# by which the one speaks to the other. From Debian's packages, for the drill is made for those; looks
# first, so that on a machine that has them it does nothing. No service is left running or enabled.
set -eu

say() { printf 'setup-failover: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

# Patroni runs on the distribution's Python, whichever else is on PATH.
has_module() { /usr/bin/python3 -c "import $1" 2>/dev/null; }

packages=""
has etcd || packages="$packages etcd-server"
has patroni || packages="$packages patroni"
has_module etcd || packages="$packages python3-etcd"
[ -n "$packages" ] || exit 0

has apt-get || die "missing:$packages; install Patroni and etcd, and have both on PATH"

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"
    elif has sudo; then sudo "$@"
    else die "run this as root, then try again: $*"
    fi
}

# Debian starts a service as soon as it is installed, unless this file says no. One that is there
# already, as in most containers, is left alone.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
    trap 'as_root rm -f "$policy"' EXIT
    trap 'exit 130' INT TERM
fi

say "installing with apt:$packages"
as_root apt-get update -qq || say "apt-get update failed; trying with what is known"
# shellcheck disable=SC2086 # a list of words
as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends $packages </dev/null

# Nor at the next start of the machine.
if has systemctl; then
    for service in etcd patroni; do
        case "$packages " in
            *" $service "* | *" $service-server "*) as_root systemctl disable --quiet "$service" 2>/dev/null || true ;;
        esac
    done
fi

for program in etcd patroni; do has "$program" || die "$program is still missing"; done
has_module etcd || die "Patroni's Python still has no module for etcd"
