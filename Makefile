# make demo    a collector, a network that fails now and then, and what the collector finds of it
# make test    everything that must hold: style, types, tests, the core under sanitizers
# make bench   how fast it is, beside plain Python and the bare transport
# make crash   kill a collector again and again: nothing may be lost, nothing be there twice
# make soak    half of its full speed for long, while keys come and go

PYTHON ?= python3
BIN := .venv/bin
SECONDS ?= 60
ROUNDS ?= 100
MINUTES ?= 20

.PHONY: demo test check bench crash soak sanitize fuzz dist conf clean missing

demo: .venv/ready
	$(BIN)/python -m collectord.netops demo

test: check sanitize
	$(BIN)/python -m pytest

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/ready
	$(BIN)/python -m benchmarks

# SEED=… for the seed of an earlier run.
crash: .venv/ready
	$(BIN)/python -m tests.crash --rounds $(ROUNDS) $(if $(SEED),--seed $(SEED))

# Writes docs/soak.md and docs/soak.svg.
soak: .venv/ready
	$(BIN)/python -m benchmarks.soak --minutes $(MINUTES)

# The core's makefile is told its Python: with `make -j` it may be read before there is one.
CORE_TESTS = $(MAKE) -C tests/core PYTHON=$(abspath $(BIN)/python)

# The C core under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer.
sanitize: .venv/ready
	$(CORE_TESTS) sanitize

# The reader and the engine under libFuzzer; wants clang.
fuzz: .venv/ready
	$(CORE_TESTS) fuzz SECONDS=$(SECONDS)

dist: .venv/ready
	$(BIN)/python -m build

# The example configuration, made from the table of options.
conf: .venv/ready
	$(BIN)/python -m collectord.options > conf/contrail-collector.conf

# The extension is built again where a source of it is newer, came or went, or where it is missing.
# Of an editable installation setuptools warns in any case. It is removed before, since setuptools doesn't notice a source that is gone; and imported after,
# which shows that it can be, and leaves nothing to be written beside the sources later.
EXTENSION := collectord/engine/_core*.so
SOURCES := csrc collectord/engine \
    $(wildcard csrc/*.c csrc/*.h collectord/engine/*.pyx collectord/engine/*.pxd)

.venv/ready: pyproject.toml setup.py $(SOURCES) $(if $(wildcard $(EXTENSION)),,missing)
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	rm -f $(EXTENSION)
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --editable '.[dev]'
	$(BIN)/python -c 'import collectord.engine'
	touch $@

missing:

clean:
	rm -rf build dist .venv *.egg-info collectord/engine/_core.c $(EXTENSION)
