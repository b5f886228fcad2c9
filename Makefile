# Lockstep's commands. `make` alone lists them.

SHELL := /bin/bash
.DEFAULT_GOAL := help

# What is built or fetched once is kept outside the checkout: a fresh clone starts quickly.
CACHE := $(or $(LOCKSTEP_CACHE_DIR),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/lockstep)
export CARGO_TARGET_DIR ?= $(CACHE)/target
DATA := $(or $(LOCKSTEP_DATA_DIR),$(CURDIR)/.lockstep)

# The parts of the set-up; each script prints where its part is and is quick when that is there. A server that is given
# needs no build, and a variable that is set is believed.
QDRANT = $(if $(QDRANT_URL),true,LOCAL_QDRANT_BIN="$${LOCAL_QDRANT_BIN:-$$(shared/local/qdrant/build)}" && export LOCAL_QDRANT_BIN)
MODEL = EMBEDDING_MODEL_DIR="$${EMBEDDING_MODEL_DIR:-$$(shared/local/model/build)}" && export EMBEDDING_MODEL_DIR
POSTGRES = $(if $(DATABASE_URL),true,POSTGRES_BIN="$${POSTGRES_BIN:-$$(shared/local/postgres/fetch)}" && export POSTGRES_BIN)
PARTS = $(MODEL) && $(POSTGRES) && $(QDRANT)
# Only tests need them.
RIE = RIE="$$(shared/local/sam/rie)" && export RIE
MOTO = MOTO_SERVER="$$(shared/local/moto/fetch)" && export MOTO_SERVER

.PHONY: help
help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: tools
tools:
	@command -v cargo >/dev/null || { echo "Rust is missing: https://rustup.rs" >&2; exit 1; }
	@command -v python3 >/dev/null || { echo "python3 is missing (it fetches the embedding model)" >&2; exit 1; }
	@command -v cc >/dev/null || { echo "a C compiler is missing (Debian: apt-get install build-essential)" >&2; exit 1; }

.PHONY: setup
setup: tools ## Build and fetch all that the others need: model, Qdrant, PostgreSQL
	@# The model's half minute is mostly waiting, so it runs beside Qdrant's build.
	@{ $(MODEL); } & model=$$!; $(POSTGRES) && $(QDRANT) && wait $$model

.PHONY: run
run: setup ## Run the whole stack on this machine (PORT=8080)
	@cargo build --package local --bin lockstep
	@$(PARTS) && exec "$$CARGO_TARGET_DIR/debug/lockstep" up

.PHONY: reindex
reindex: setup ## Build Qdrant's collection anew from PostgreSQL, while the stack runs or not (ARGS=--next, --status, ...)
	@cargo build --package local --bin lockstep
	@$(PARTS) && exec "$$CARGO_TARGET_DIR/debug/lockstep" reindex $(ARGS)

.PHONY: ingest
ingest: tools ## Send all files below DIR to the running stack (URL=http://127.0.0.1:8080)
	@test -n "$(DIR)" || { echo "usage: make ingest DIR=folder" >&2; exit 2; }
	@cargo build --quiet --package local --bin lockstep
	@exec "$$CARGO_TARGET_DIR/debug/lockstep" ingest "$(DIR)" $(if $(URL),--url "$(URL)")

.PHONY: test
test: setup ## Run all tests, against real stores
	@$(MOTO) && $(PARTS) && cargo test --workspace
	@# With the tests, or their features would make other builds of everything.
	@cargo build --quiet --workspace --bins --tests
	@$(RIE) && $(PARTS) && shared/local/sam/drive "$$CARGO_TARGET_DIR/debug/lockstep" "$$CARGO_TARGET_DIR/debug"
	@shared/local/qdrant/build test

.PHONY: soak
soak: setup ## Try random schedules with faults and killed stores (MINUTES=20, SEED=)
	@cargo build --package local --bins
	@$(PARTS) && exec "$$CARGO_TARGET_DIR/debug/lockstep" soak --minutes $(or $(MINUTES),20) $(if $(SEED),--seed $(SEED))

.PHONY: bench
bench: setup build ## Measure what the service adds to the work itself, as ratios (DOCUMENTS=100000)
	@CARGO_INCREMENTAL=0 cargo build --profile measure --package local --bin lockstep --bin empty-function
	@$(RIE) && $(PARTS) && measure="$$CARGO_TARGET_DIR/measure" && \
	shared/local/sam/cold "$$measure/lockstep" dist "$$measure/empty-function" "$(DATA)/cold-starts.json" && \
	LOCKSTEP_DATA_DIR="$(DATA)" "$$measure/lockstep" bench --documents $(or $(DOCUMENTS),100000) "$(DATA)/cold-starts.json"

.PHONY: bench-instructions
bench-instructions: setup ## Count the instructions of what is hot, and compare with those that were written down (ARGS=--write)
	@runner="$$(shared/local/benches/runner)" && $(PARTS) && set -o pipefail && \
	CARGO_INCREMENTAL=0 cargo build --profile measure --package local --bench instructions && \
	CARGO_INCREMENTAL=0 GUNGRAUN_RUNNER="$$runner" cargo bench --quiet --profile measure --package local --bench instructions 2>&1 | shared/local/benches/compare $(ARGS)

.PHONY: bench-audit
bench-audit: setup ## Measure questions and the drift audit on very many points (POINTS=1000000)
	@CARGO_INCREMENTAL=0 cargo build --profile measure --package local --bin lockstep --bin test-function
	@$(PARTS) && exec "$$CARGO_TARGET_DIR/measure/lockstep" bench-audit --points $(or $(POINTS),1000000)

.PHONY: bench-large
bench-large: setup ## Measure the ingestion of a long text in pieces of a minute (MEGABYTES=100)
	@cargo build --package local --bins
	@$(PARTS) && exec "$$CARGO_TARGET_DIR/debug/lockstep" bench-large --megabytes $(or $(MEGABYTES),100)

.PHONY: signing-key
signing-key: tools ## Make a signing key for a deployment (DIR=folder outside of the checkout)
	@test -n "$(DIR)" || { echo "usage: make signing-key DIR=folder" >&2; exit 2; }
	@cargo build --quiet --package local --bin lockstep
	@exec "$$CARGO_TARGET_DIR/debug/lockstep" signing-key "$(DIR)"

.PHONY: openapi
openapi: tools ## Write the API's contract and its page anew (docs/contracts), from the handlers
	@cargo build --quiet --package local --bin lockstep
	@"$$CARGO_TARGET_DIR/debug/lockstep" openapi .

.PHONY: fuzz
fuzz: tools ## Read ten thousand mutated documents (FUZZ_MUTATIONS=n)
	@FUZZ_MUTATIONS=$${FUZZ_MUTATIONS:-10000} cargo test --package ingest --test hostile -- mutated --nocapture

.PHONY: eval
eval: setup ## Measure retrieval on data sets (DATASETS="dir dir", EVAL="--half 1")
	@cargo build --package local --bin lockstep
	@$(PARTS) && LOCKSTEP_DATA_DIR="$(DATA)" "$$CARGO_TARGET_DIR/debug/lockstep" eval $(EVAL) $(DATASETS)

.PHONY: lint
lint: tools ## Check format and lints, in both workspaces
	@cargo fmt --all --check
	@cargo clippy --workspace --all-targets -- -D warnings
	@cargo fmt --manifest-path shared/local/qdrant/Cargo.toml --check
	@# Its compiler is a newer one, which may have come without clippy.
	@if shared/local/qdrant/build clippy --version 2>/dev/null; \
	then shared/local/qdrant/build clippy --all-targets -- -D warnings; \
	else echo "lint: local-qdrant's toolchain has no clippy, skipped (rustup component add clippy)" >&2; fi

.PHONY: build
build: tools ## Pack the functions for Lambda into dist/ (ARCH=arm64 or x86_64; this machine's)
	@shared/local/zip/build $(ARCH)

.PHONY: test-release
test-release: setup build ## Drive the functions of dist/ through AWS's emulator with recorded events
	@cargo build --package local --bin lockstep
	@$(RIE) && $(PARTS) && shared/local/sam/drive "$$CARGO_TARGET_DIR/debug/lockstep" dist

.PHONY: invoke
invoke: tools ## Give a function an event as Lambda does, while the stack runs (FUNCTION=query EVENT=question)
	@test -n "$(FUNCTION)" -a -n "$(EVENT)" || { echo "usage: make invoke FUNCTION=query EVENT=question (functions/*/events/)" >&2; exit 2; }
	@cargo build --quiet --package auth --package ingest --package query --bins
	@$(RIE) && $(MODEL) && LOCKSTEP_DATA_DIR="$(DATA)" LOCKSTEP_URL="$(URL)" shared/local/sam/invoke "$$CARGO_TARGET_DIR/debug" "$(FUNCTION)" "$(EVENT)"

.PHONY: lint-template
lint-template: ## Check the template (fetches the linters once; minutes)
	@shared/local/sam/lint

.PHONY: stack-template
stack-template: ## Create the template's stack in a stand-in for AWS (fetches it once)
	@shared/local/sam/stack

.PHONY: fmt
fmt: tools ## Format the code
	@cargo fmt --all
	@cargo fmt --manifest-path shared/local/qdrant/Cargo.toml

.PHONY: clean-data
clean-data: ## Remove the local stack's data (accounts, documents, keys)
	rm -rf -- "$(DATA)"
