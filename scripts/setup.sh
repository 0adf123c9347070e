#!/bin/sh
# Installs what a bare machine lacks to build and run callq: a C compiler (Rust links through it),
# pkg-config, the headers of libpq and OpenSSL, and the PostgreSQL server binaries. With `tests`, what
# only tests use as well: PgBouncer, without which they leave out what goes through it. Looks first,
# so that on a machine that has them it does nothing, asks for nothing and takes no time.
set -eu

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

# The same places callq looks in; see crates/embedded-postgres/src/binaries.rs.
has_postgres() {
    if [ -n "${CALLQ_PG_BIN:-}" ]; then
        [ -x "$CALLQ_PG_BIN/initdb" ] || die "CALLQ_PG_BIN=$CALLQ_PG_BIN holds no initdb"
        return 0
    fi
    has initdb && has postgres && return 0
    for folder in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /usr/libexec/postgresql* \
        /opt/homebrew/opt/postgresql@*/bin /usr/local/opt/postgresql@*/bin /usr/local/pgsql/bin; do
        if [ -x "$folder/initdb" ] && [ -x "$folder/postgres" ]; then return 0; fi
    done
    return 1
}

has_library() { pkg-config --exists "$1" 2>/dev/null; }

# macOS brings its own TLS, and Homebrew's libpq is found through pg_config.
has_libraries() {
    if [ "$(uname)" = Darwin ]; then has pg_config; else has_library libpq && has_library openssl; fi
}

has_pgbouncer() { has pgbouncer || [ -x /usr/sbin/pgbouncer ]; }

has cargo || die "Rust is missing; install it from https://rustup.rs"

missing=""
has cc || missing="$missing compiler"
has pkg-config || missing="$missing pkg-config"
has_libraries || missing="$missing libraries"
has_postgres || missing="$missing postgres"
for_tests=""
if [ "${1:-}" = tests ] && ! has_pgbouncer; then for_tests=pgbouncer; fi

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"
    elif has sudo; then sudo "$@"
    else die "run this as root, then try again: $*"
    fi
}

# $1: the thing missing; the rest: the packages that bring it. Adds them to $packages.
want() {
    case "$missing " in *" $1 "*) shift; packages="$packages $*" ;; esac
}

install_with_apt() {
    want compiler gcc libc6-dev
    want pkg-config pkg-config
    want libraries libpq-dev libssl-dev
    want postgres postgresql
    say "installing with apt:$packages"
    # Debian creates and starts a cluster of its own along with the binaries. callq has no use for
    # it, and it would sit on the machine and on port 5432.
    case "$packages" in *" postgresql"*) forbid_main_cluster ;; esac
    as_root apt-get update -qq || say "apt-get update failed; trying with what is known"
    # shellcheck disable=SC2086 # a list of words
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends $packages </dev/null
}

forbid_main_cluster() {
    folder=/etc/postgresql-common/createcluster.d
    file=$folder/callq-setup.conf
    as_root mkdir -p "$folder"
    echo 'create_main_cluster = false' | as_root tee "$file" >/dev/null
    forget_later "$file"
}

# Removes a file of ours at the end, however that comes.
litter=""
forget_later() {
    litter="$litter $1"
    # shellcheck disable=SC2086 # a list of words
    trap 'as_root rm -f $litter' EXIT
    trap 'exit 130' INT TERM
}

# A pooler that runs by itself is of no use to tests, each of which starts its own.
install_pgbouncer_with_apt() {
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
        forget_later "$policy"
    fi
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends pgbouncer </dev/null || return 1
    if has systemctl; then as_root systemctl disable --quiet pgbouncer 2>/dev/null || true; fi
}

install_with_dnf() {
    want compiler gcc
    want pkg-config pkgconf-pkg-config
    want libraries libpq-devel openssl-devel
    want postgres postgresql-server
    say "installing with dnf:$packages"
    # shellcheck disable=SC2086 # a list of words
    as_root dnf install -y -q --setopt=install_weak_deps=False $packages </dev/null
}

install_with_brew() {
    case "$missing " in
        *" compiler "*) die "install Apple's command line tools: xcode-select --install" ;;
    esac
    want pkg-config pkgconf
    want libraries postgresql@17
    want postgres postgresql@17
    say "installing with brew:$packages"
    # shellcheck disable=SC2086 # a list of words
    brew install --quiet $packages </dev/null
}

if [ -n "$missing" ]; then
    packages=""
    if has apt-get; then install_with_apt
    elif has dnf; then install_with_dnf
    elif has brew; then install_with_brew
    else die "missing:$missing; no apt, dnf or brew here to install them with"
    fi
    has_postgres || die "the PostgreSQL server binaries are still missing; set CALLQ_PG_BIN to their folder"
fi

# What only tests use may be missing: they say so, and leave out what needs it. So nobody is asked for
# a password for it.
if [ -n "$for_tests" ]; then
    say "installing for the tests: $for_tests"
    if has brew && [ "$(uname)" = Darwin ]; then brew install --quiet pgbouncer </dev/null
    elif [ "$(id -u)" -ne 0 ] && ! sudo -n true 2>/dev/null; then false
    elif has apt-get; then
        as_root apt-get update -qq || say "apt-get update failed; trying with what is known"
        install_pgbouncer_with_apt
    elif has dnf; then as_root dnf install -y -q --setopt=install_weak_deps=False pgbouncer </dev/null
    else false
    fi || say "$for_tests could not be installed; the tests that need it will be left out"
fi
