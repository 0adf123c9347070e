# The one list of what can be done here; people and CI use the same targets.

# Homebrew keeps a versioned PostgreSQL off PATH, and the linker asks its pg_config where libpq is.
keg := $(firstword $(wildcard /opt/homebrew/opt/postgresql@17/bin /usr/local/opt/postgresql@17/bin))
ifneq ($(keg),)
export PATH := $(keg):$(PATH)
endif

.DEFAULT_GOAL := help
.PHONY: help setup setup-tests run demo test test-long check lint fmt docs deny build bench bench-quick chaos failover

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what building and running need and this machine lacks
	@scripts/setup.sh

# The development profile: it compiles in well under half the time of the release profile, and what
# a first look at callq waits for is the compiler and PostgreSQL, not our own code.
run: setup ## Serve on port 3001 with a private database
	cargo run --bin callq -- serve

demo: setup ## Watch a live scenario in the terminal
	cargo run --bin callq -- demo

# What tests need beside it may be missing; they say what they leave out then.
setup-tests:
	@scripts/setup.sh tests

test: setup-tests ## Run every test, documentation examples included
	cargo test --workspace

test-long: setup-tests ## The same with many more random cases, and a million waiting calls where it matters
	CALLQ_LONG_TESTS=1 cargo test --workspace

check: lint docs deny ## Everything CI checks besides the tests

lint: setup ## Formatting and clippy, warnings as errors
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

fmt: ## Format the code
	cargo fmt --all

docs: setup ## Build the API documentation, warnings as errors; check what the documents name
	@scripts/check-docs.sh
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# Advisories need a database from the network: `make deny CHECKS=advisories`.
CHECKS := bans licenses sources
deny: setup ## Check the licences and origins of all dependencies
	@scripts/cargo-deny.sh check --hide-inclusion-graph $(CHECKS)

build: setup ## Build the optimised binary, target/release/callq
	cargo build --release --bin callq

# Both in one build, so that callq is measured as it is shipped: the bench starts it too.
BENCH := cargo build --release --bin callq --bin callq-bench && target/release/callq-bench
bench: ARGS := --plots docs/bench
bench: setup ## Measure callq, in about an hour, for docs/benchmarks.md; ARGS="--only drain" for less
	$(BENCH) $(ARGS)

# Both optimised, so that it is the shipped callq that is broken.
CHAOS := cargo build --release --bin callq --bin callq-chaos && target/release/callq-chaos
chaos: setup ## Break callq for five minutes, and its broken twins too; ARGS="--seed 7 --rounds 10"
	$(CHAOS) --twins $(ARGS)

bench-quick: setup ## The same in about two minutes, with small sizes
	$(BENCH) --quick $(ARGS)

# Debian and its relatives only. Without optimisation: what it measures is waiting.
failover: setup ## Lose PostgreSQL nodes of two under load, and see that a twin which loses calls is found out; ARGS="--rounds 8 --seed 7"
	@scripts/setup-failover.sh
	cargo build --bin callq --bin callq-chaos && target/debug/callq-chaos failover $(ARGS)
	target/debug/callq-chaos failover --twin --rounds 1
