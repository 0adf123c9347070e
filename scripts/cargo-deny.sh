#!/bin/sh
# Runs cargo-deny, building it once if the machine has none recent enough to read our lockfile.
# Unoptimised: two minutes of building instead of many, and it checks in seconds all the same. Kept
# apart from the user's own tools, and across fresh clones.
set -eu

version=0.20.2
tools="${CARGO_HOME:-$HOME/.cargo}/callq-tools"

recent() { # cargo-deny 0.18 or newer
    found=$("$1" --version 2>/dev/null | cut -d ' ' -f 2) || return 1
    major=${found%%.*}
    minor=${found#*.}
    minor=${minor%%.*}
    [ "${major:-0}" -gt 0 ] || [ "${minor:-0}" -ge 18 ]
}

if recent cargo-deny; then
    deny=cargo-deny
else
    deny=$tools/bin/cargo-deny
    if ! recent "$deny"; then
        build=$(mktemp -d)
        trap 'rm -rf "$build"' EXIT
        cargo install cargo-deny --version "$version" --locked --debug \
            --root "$tools" --target-dir "$build" --quiet --config 'profile.dev.debug=0'
    fi
fi

"$deny" "$@"
