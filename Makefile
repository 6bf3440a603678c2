# make demo    a collector, a small network that reports to it, and what it makes of it
# make test    everything that must hold: style, types, tests, the core under sanitizers
# make bench   how fast it is, beside plain Python and the bare transport

PYTHON ?= python3
BIN := .venv/bin
SECONDS ?= 60

.PHONY: demo test check bench sanitize fuzz dist conf clean

demo: .venv/ready
	$(BIN)/python -m collectord.demo

test: check sanitize
	$(BIN)/python -m pytest

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/ready
	$(BIN)/python -m benchmarks

# The C core under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer.
sanitize: .venv/ready
	$(MAKE) -C tests/core sanitize

# The reader and the engine under libFuzzer; wants clang.
fuzz: .venv/ready
	$(MAKE) -C tests/core fuzz SECONDS=$(SECONDS)

dist: .venv/ready
	$(BIN)/python -m build

# The example configuration, made from the table of options.
conf: .venv/ready
	$(BIN)/python -m collectord.options > conf/contrail-collector.conf

# The extension is built again where a source of it is newer.
.venv/ready: pyproject.toml setup.py $(wildcard csrc/*.c csrc/*.h collectord/engine/*.pyx collectord/engine/*.pxd)
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf build dist .venv *.egg-info collectord/engine/_core.c collectord/engine/*.so
