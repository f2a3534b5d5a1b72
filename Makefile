# Everything a person runs. `make help` lists it; nothing but Python 3.11+, make and a package index is assumed.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN  := $(VENV)/bin
PY   := $(BIN)/python
# The first interpreter that will do; PYTHON=/path/to/python3.11 overrides.
PYTHON ?= $(shell for p in python3.11 python3.12 python3 python; do \
	  $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null && { echo $$p; break; }; done)

.PHONY: help setup demo demo-live up run test test-fast lint types format lock clean s3rver

help: ## This list
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.installed ## Make .venv and install what requirements.txt locks

$(VENV)/.installed: requirements.txt pyproject.toml
	@if [ -z "$(PYTHON)" ]; then \
	  echo "No Python 3.11 or 3.12 found. Install one, or name it: make $(or $(MAKECMDGOALS),setup) PYTHON=/path/to/python3.11" >&2; exit 1; fi
	@[ -x $(PY) ] || { echo "== making $(VENV) with $$($(PYTHON) --version)"; $(PYTHON) -m venv $(VENV); }
	@echo "== installing $$(grep -c '^[a-z].*==' requirements.txt) locked packages (about a minute)"
	@# --no-deps: the lock is complete, and old pips stumble over extras beside hashes.
	@# --compile: machines may switch bytecode off, which doubles the start of every process.
	@$(PY) -m pip install -qq --disable-pip-version-check --require-hashes --no-deps --compile -r requirements.txt
	@$(PY) -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --config-settings editable_mode=compat --editable .
	@touch $@

demo: setup ## Land the NYC flights data, run everything, show what came out
	@$(BIN)/lakehouse demo

demo-live: setup ## Replay December 2013 hour by hour while the sensors work
	@$(BIN)/lakehouse demo --live

up: setup ## Start the web UI and the daemon with the sensors on
	@$(BIN)/lakehouse up

run: setup ## Take whatever has arrived through bronze, silver and gold
	@$(BIN)/lakehouse run

# A store that must be refused, for one test. Without Node.js or its registry that test is skipped, and says so.
s3rver: .make/s3rver/.installed ## Fetch the store that ignores conditional writes (a negative control of the tests)
.make/s3rver/.installed: tests/s3rver/package.json tests/s3rver/package-lock.json
	@mkdir -p $(@D) && cp $^ $(@D)/
	@if command -v npm >/dev/null && (cd $(@D) && npm ci --silent --no-audit --no-fund --ignore-scripts); then touch $@; \
	  else echo "no npm packages: the test of a store that ignores conditional writes will be skipped" >&2; fi

# Older DuckDB releases, each in a folder of its own, that must open the catalog too.
OTHER_DUCKDB := $(patsubst tests/gold/duckdb-%.txt,.make/other-duckdb/%/.installed,$(wildcard tests/gold/duckdb-*.txt))

.make/other-duckdb/%/.installed: tests/gold/duckdb-%.txt | setup
	@$(PY) -m pip install -qq --disable-pip-version-check --require-hashes --no-deps --upgrade --target $(@D) -r $<
	@touch $@

test: setup s3rver $(OTHER_DUCKDB) ## Every test
	@$(PY) -m pytest -n 3 --dist loadfile --no-loadscope-reorder

test-fast: setup ## The tests that take under a minute together
	@$(PY) -m pytest -n 3 --dist loadfile -m "not slow and not browser"

lint: setup ## Format check and lint
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .

types: setup ## Strict type check
	@$(BIN)/mypy

format: setup ## Format and fix what can be fixed
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

lock: ## Resolve pyproject.toml again into requirements.txt
	@# The resolver lives in a venv of its own: it is no part of what the project needs to run.
	@[ -x .make/lock/bin/uv ] || { $(PYTHON) -m venv .make/lock && .make/lock/bin/python -m pip install --quiet uv; }
	@.make/lock/bin/uv pip compile --quiet --python-version 3.11 --generate-hashes --no-strip-extras --no-header \
	  --no-emit-index-url --no-emit-find-links --extra dev pyproject.toml -o requirements.txt

clean: ## Remove the demo's data and the tools' caches (not .venv)
	rm -rf .lake .lake-live .make .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find lakehouse asset_checks tests -name __pycache__ -type d -prune -exec rm -rf {} +
