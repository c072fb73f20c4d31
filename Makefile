# The two commands of the README are `make demo` and `make test`.
.PHONY: demo test static bench soak

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

# The long forms of the tests.
soak:
	BG_SOAK=1 .ci/test
