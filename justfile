# The project's chores. `just` alone lists them.

default:
    @just --list

# The README's first command: a real checkpoint on built-in sentences.
demo:
    cargo run --release -- demo

# The README's second command: all tests, no network, no GPU.
test:
    cargo test --workspace

# What has to be clean before a change lands.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# Everything that CI runs.
ci:
    bash .ci/run

# Operations of the CPU backend: values checked, then timed.
bench-ops:
    cargo run --release -p mlxt-cpu --example conformance

# Whole encoders on this CPU against every other engine, and real sentences: ratio, interval and share of the machine's limit for
# each cell. Sets up Python peers first (6 GB, once); then about 15 minutes. PyTorch takes part at its best where tcmalloc is (Debian:
# libtcmalloc-minimal4).
bench-cpu:
    cargo run --release -- study setup torch
    cargo run --release -- study run cpu -o target/bench-cpu.jsonl
    cargo run --release -- study run ragged -o target/bench-ragged.jsonl

# Makes the fixtures again with Hugging Face transformers (fixtures/requirements.txt).
fixtures:
    python3 fixtures/make.py

# Damaged files of every format, so many seconds each; fails on a panic, too much memory or too much time.
fuzz SECONDS="60":
    for target in safetensors torch config tokenizer; do cargo run -p mlxt-fuzz -- $target {{SECONDS}} || exit 1; done
