#!/bin/sh
# What the documents say of this repository and a machine can check: every test that the testing
# checklist names exists, no case names none, and every relative link leads to a file.
set -eu

cd "$(dirname "$0")/.."
faults=$(mktemp)
trap 'rm -f "$faults"' EXIT

# Every test function, as `path`: `name`, the way the checklist writes it.
tests=$(find bins crates -name '*.rs' -exec awk '
    /#\[(tokio::|actix_web::)?test/ { test = 1; next }
    test && match($0, /fn [a-z0-9_]+/) { print "`" FILENAME "`: `" substr($0, RSTART + 3, RLENGTH - 3) "`"; test = 0 }
' {} +)
grep -o '`[a-z/_-]*\.rs`: `[a-z0-9_]*`' docs/testing-checklist.md | sort -u | while read -r named; do
    printf '%s\n' "$tests" | grep -qxF "$named" || echo "docs/testing-checklist.md: no test $named"
done >>"$faults"
grep -E '^\| [0-9]+\.[0-9]+ ' docs/testing-checklist.md | grep -vE '\.rs`: `|by hand' |
    sed 's/^/docs\/testing-checklist.md: no test in /' >>"$faults" || true

for file in *.md docs/*.md docs/adr/*.md; do
    grep -o '](\([^)]*\))' "$file" | sed 's/^](//; s/)$//; s/#.*//' | grep -v '^[a-z]*:' | sort -u | while read -r link; do
        [ -z "$link" ] || [ -e "$(dirname "$file")/$link" ] || echo "$file: no $link"
    done
done >>"$faults"

cat "$faults" >&2
[ ! -s "$faults" ]
