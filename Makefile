# The two commands of the README are `make demo` and `make test`.
.PHONY: demo test static bench instructions soak clients fuzz

STATIC = -- -C target-feature=+crt-static

demo: static
	target/release/bgctl demo

test:
	.ci/test

# Both programs without a dynamic loader, so that they run in an empty container.
static:
	cargo rustc --release -p ctl --bin bgctl $(STATIC)
	cargo rustc --release -p proxy --bin bgproxy $(STATIC)

# What things cost; the second beside nginx and HAProxy, where they are installed.
bench:
	cargo bench -p benches
	cargo build --release -p proxy
	cargo run --release -p benches --bin swap-latency
	cargo run --release -p benches --bin request-cost

# Whether a request takes more instructions than it did; needs valgrind, and doesn't mind other work on the machine.
instructions:
	cargo build --release -p proxy
	cargo run --release -p benches --bin request-instructions

# Each fuzz target for so many seconds; needs nightly Rust and cargo-fuzz.
FUZZ_SECONDS = 60
fuzz:
	set -e; for target in answer request path config admin; do \
	  mkdir -p fuzz/target/corpus/$$target; \
	  cargo +nightly fuzz run $$target fuzz/target/corpus/$$target fuzz/corpus/$$target -- -max_total_time=$(FUZZ_SECONDS); \
	done

# The clients in Python that tests/it/clients.rs runs; the others are packages of the system.
clients: target/clients/done

target/clients/done: tests/clients/requirements.txt
	python3 -m venv target/clients
	target/clients/bin/pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

# The long forms of the tests.
soak:
	BG_SOAK=1 .ci/test
