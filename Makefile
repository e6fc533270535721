# Two commands set the project up: `make demo` does the main job on real rows, `make test` passes the tests.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.PHONY: demo test build runtime lint sqlx openapi parity interop base-precision bench bench-dataset bench-generate clean-demo

RUNTIME := .runtime
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
BIN := $(TARGET)/debug
# Held against the sources: what Cargo.lock does not pin must not change under a test.
CARGO_FLAGS := --locked

runtime:
	@python3 scripts/runtime.py --dir $(RUNTIME)

# Both programs; every profile would build libtorch's bindings anew, so everything here uses the same one.
build: runtime
	cargo build $(CARGO_FLAGS) --workspace --bins

# The whole way: upload, lint, queue, training, base against tuned, the adapter in ./demo-output.
# `make demo DATASET=path` takes your own rows.
demo: build
	@$(BIN)/finetuned demo --runtime-dir $(RUNTIME) $(if $(DATASET),--dataset "$(DATASET)") --out demo-output

$(RUNTIME)/python-sdk: runtime
	@scripts/venv.sh $(RUNTIME)/python-sdk tests/python/requirements-sdk.txt

$(RUNTIME)/python-interop: runtime
	@scripts/venv.sh $(RUNTIME)/python-interop tests/python/requirements-interop.txt

.PHONY: $(RUNTIME)/python-sdk $(RUNTIME)/python-interop

lint: runtime
	cargo fmt --all -- --check
	cargo clippy $(CARGO_FLAGS) --workspace --all-targets -- -D warnings

# What is generated must equal what is committed.
drift: build
	scripts/sqlx.sh --check
	$(BIN)/finetuned openapi --check openapi.yaml
	$(BIN)/finetuned error-codes --check docs/job-errors.md
.PHONY: drift

test: lint build drift $(RUNTIME)/python-sdk
	FINETUNED_BIN_DIR=$(BIN) cargo test $(CARGO_FLAGS) --workspace

# Writes .sqlx, openapi.yaml and the table of job errors again after a change of SQL, of a handler or of a code.
sqlx: runtime
	scripts/sqlx.sh

openapi: build
	$(BIN)/finetuned openapi > openapi.yaml
	$(BIN)/finetuned error-codes > docs/job-errors.md

# Our figures against those of transformers and peft, on any folder of reference cases; the results go into OUT.
CASES ?= tests/fixtures/parity
OUT ?= parity-output
parity: build
	$(BIN)/finetuned-engine parity "$(CASES)" "$(OUT)"

# Kills, stops and cuts whatever there is while jobs train, as a seed says, and compares what comes out with a run that
# nobody disturbed. SCALE is the factor of the lease protocol's times; 1 takes them as they are shipped.
SEED ?= 1
COUNT ?= 10
SCALE ?= 0.1
chaos: build
	FINETUNED_BIN_DIR=$(BIN) CHAOS_SEED=$(SEED) CHAOS_COUNT=$(COUNT) CHAOS_SCALE=$(SCALE) \
		cargo test $(CARGO_FLAGS) -p finetuned-tests --test chaos -- --nocapture
.PHONY: chaos

# How fast datasets are looked at, beside Python's readers and tokenizers on the same file, and in how much memory.
bench-dataset: build $(RUNTIME)/python-interop
	@$(RUNTIME)/python-interop/bin/python scripts/bench_dataset.py --bin $(BIN) --runtime $(RUNTIME)

# The exported adapter in peft and transformers, logit by logit. Brings 3 GB of Python packages, so it stands apart.
interop: build $(RUNTIME)/python-interop
	$(RUNTIME)/python-interop/bin/python tests/python/interop.py --bin $(BIN) --runtime $(RUNTIME)

CLIENTS := python-sdk python-sdk-1 python-sdk-2 python-dspy node
.PHONY: $(CLIENTS:%=client-%) conformance
$(CLIENTS:%=client-%): client-%: runtime
	@scripts/venv.sh $(RUNTIME)/$* tests/python/requirements-$(patsubst python-%,%,$*).txt

# The official clients for Python and Node, several major versions, and DSPy above them: each runs the main job unmodified.
conformance: build $(CLIENTS:%=client-%)
	python3 tests/python/conformance.py --bin $(BIN) --runtime $(RUNTIME)

# schemathesis on a running service, half of SECONDS with a key and half without: what the document promises, and nothing else.
api-fuzz: build client-python-schemathesis
	python3 tests/python/api_fuzz.py --bin $(BIN) --runtime $(RUNTIME) --seconds $(or $(SECONDS),1200)
.PHONY: api-fuzz client-python-schemathesis
client-python-schemathesis: runtime
	@scripts/venv.sh $(RUNTIME)/python-schemathesis tests/python/requirements-schemathesis.txt

# Every parser of files that others made, and the template engine, under libFuzzer: SECONDS each, TARGETS all. Memory errors
# are the compiler's affair, so no sanitizer, and stable Rust will do; what the fuzzer learns stays out of the repository.
TARGETS ?= $(patsubst tests/fuzz/fuzz_targets/%.rs,%,$(sort $(wildcard tests/fuzz/fuzz_targets/*.rs)))
FUZZ := $(RUNTIME)/cargo-fuzz/bin/cargo-fuzz
$(FUZZ):
	cargo install cargo-fuzz --version 0.13.2 --locked --root $(RUNTIME)/cargo-fuzz
fuzz: $(FUZZ)
	for target in $(TARGETS); do \
		mkdir -p $(RUNTIME)/fuzz/$$target tests/fuzz/corpus/$$target; \
		$(FUZZ) fuzz run --fuzz-dir tests/fuzz --sanitizer none $$target $(RUNTIME)/fuzz/$$target tests/fuzz/corpus/$$target -- \
			-max_total_time=$(or $(SECONDS),300) -timeout=20 -rss_limit_mb=1024 -max_len=65536 -print_final_stats=1; \
	done
.PHONY: fuzz

# What a frozen base model in fewer bits saves and costs: the table in the README.
base-precision: build
	python3 tests/python/base_precision.py --bin $(BIN) --runtime $(RUNTIME)

# What is written for llama.cpp, in llama.cpp, which is compiled for this: ten minutes on two cores.
interop-llama: build
	@scripts/venv.sh $(RUNTIME)/python-llama tests/python/requirements-llama.txt
	$(RUNTIME)/python-llama/bin/python tests/python/llama_cpp_interop.py --bin $(BIN) --runtime $(RUNTIME)
.PHONY: interop-llama

# Our engine and transformers + peft on the same rows, in turn; prints the ratio and both peak memories.
bench: build $(RUNTIME)/python-interop
	$(RUNTIME)/python-interop/bin/python scripts/bench.py --bin $(BIN) --runtime $(RUNTIME)

# Greedy answers at batches of 8 and 32, our engine and transformers' generate in turn; prints the ratio.
bench-generate: build $(RUNTIME)/python-interop
	$(RUNTIME)/python-interop/bin/python scripts/bench_generate.py --bin $(BIN) --runtime $(RUNTIME)
