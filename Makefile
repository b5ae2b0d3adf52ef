.DEFAULT_GOAL := build
.NOTPARALLEL:
# A file that a failing recipe has half written is no target.
.DELETE_ON_ERROR:

# Tells the hook in erlang/rebar.config that the native library is built already.
export CAUSEWAY_MAKE := 1

# Without a locale, as in containers, Erlang reads names of files that are not ASCII in another way than it writes them.
export LANG ?= C.UTF-8

# For `make run`.
export PORT ?= 8080

export MINUTES ?= 5

RELEASE := .build/release
PRIV := erlang/priv
VENVS := .build/venvs
RUN_PYTHON := CAUSEWAY_PYTHON="$(CURDIR)/$(VENVS)/run/bin/python"

# --- for people ---------------------------------------------------------------------------------

.PHONY: help
help: ## this list
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/make \1\t\2/p' Makefile | expand -t 22

.PHONY: run
run: build run-venv ## serve http://127.0.0.1:8080 (PORT=...) from a Python protocol in a node
	@export $(RUN_PYTHON); exec erlang/examples/serve.sh

.PHONY: build
build: setup native ## everything that the other targets need
	@echo "== rebar3 compile"
	@cd erlang && rebar3 compile

.PHONY: test
test: build check-traps ## all suites on every Python found (ONLY_PYTHON=3.12: on that)
	@.ci/test

.PHONY: soak
soak: build release-venv ## the tests that take long
	@.ci/test --soak

.PHONY: test-release
test-release: release-venv ## wheels and releases: made from a clean copy, used when that is away; part of soak
	@$(VENVS)/release/bin/python -m pytest -p no:cacheprovider --durations 5 Tests/Release

.PHONY: test-matrix
test-matrix: build ## all tests on every Python and OTP found, and in Debian's next release (ONLY=trixie, SUITES=...)
	@.ci/matrix

.PHONY: test-sanitize
test-sanitize: build ## the core under the address and thread sanitizers, a node under that of addresses (ONLY=py_call_SUITE,...)
	@.ci/sanitize

.PHONY: fuzz
fuzz: build run-venv ## packets, CBOR, frames, chunks and terms for MINUTES in all, from the kept inputs on (ONLY=cbor)
	@$(RUN_PYTHON) Tests/Fuzz/run

.PHONY: bench
bench: build bench-venv ## ours against the peers, as ratios (ONLY=..., QUICK=1, RECORD=1)
	@swift build -c release --package-path Tests/Benchmarks --scratch-path .build/load
	@newest=$$(.ci/find-pythons 2>/dev/null | tail -n 1); export NEWEST_PYTHON="$${newest#* }"; \
	    export CAUSEWAY_PYTHON="$(CURDIR)/$(VENVS)/bench/bin/python"; exec Tests/Benchmarks/run

.PHONY: bench-check
bench-check: export CHECK := 1
# What is compared.
bench-check: export CORES ?= together
bench-check: bench ## the same; fails where a ratio is 15 % worse than Tests/Benchmarks/thresholds.config

.PHONY: doc
doc: build lint-venv ## the reference of all modules, in .build/doc
	@.ci/doc $(VENVS)/lint/bin/python

.PHONY: lint
lint: lint-swift check-traps lint-erlang lint-python ## formatting, traps, xref, dialyzer, ruff, stubs

.PHONY: format
format: lint-venv ## puts Swift and Python into the form that lint wants
	@swift format --in-place --recursive Package.swift Sources Tests
	@$(RUFF) check --fix $(PYTHON_CODE)
	@$(RUFF) format $(PYTHON_CODE)

.PHONY: clean
clean: ## removes all that is built, virtual environments too
	rm -rf .build _build priv erlang/_build $(PRIV) python/_causeway.abi3.so

# --- set-up -------------------------------------------------------------------------------------

.PHONY: setup
setup:
	@.ci/check-swift
	@.ci/install-packages

# For who builds the library only, as pip and rebar3 have it done.
.PHONY: setup-native
setup-native:
	@.ci/check-swift
	@.ci/install-packages --native

.PHONY: run-venv
run-venv: setup
	@set -e; python=$$(.ci/find-pythons --default); \
	    .ci/venv run "$${python#* }" erlang/examples/requirements.txt

.PHONY: bench-venv
bench-venv: setup
	@set -e; python=$$(.ci/find-pythons --default); \
	    .ci/venv bench "$${python#* }" Tests/Benchmarks/requirements.txt

.PHONY: release-venv
release-venv: setup
	@set -e; python=$$(.ci/find-pythons --default); \
	    .ci/venv release "$${python#* }" Tests/Release/requirements.txt

.PHONY: lint-venv
lint-venv: setup
	@set -e; python=$$(.ci/find-pythons --default); \
	    .ci/venv lint "$${python#* }" python/requirements-lint.txt

# --- the native library -------------------------------------------------------------------------

PACKAGE := $(shell cd python && find erlang -name '*.py' -o -name '*.pyi' -o -name py.typed)

# What Erlang and Python load; the library is the same file for both.
.PHONY: native
native: ## the native library and what belongs to it, as Erlang and Python load it
native: $(PRIV)/libcauseway.so $(PRIV)/causeway_loader.so $(PRIV)/causeway-spawn python/_causeway.abi3.so \
    $(PRIV)/python/erlang $(PRIV)/python/_causeway.abi3.so

# swift build knows what is out of date. It leaves its products alone if nothing is, and then nothing
# below is done again. Without the option all is out of date where a terminal has come or gone since, as when
# pip or rebar3 call this after who is at a terminal.
SWIFT_BUILD := swift build -c release --no-color-diagnostics
.PHONY: swift-build
swift-build: setup-native
	@echo "== swift build"
	@$(SWIFT_BUILD) --product causeway
	@$(SWIFT_BUILD) --product causeway_loader
	@$(SWIFT_BUILD) --product causeway-spawn
$(RELEASE)/%.so: swift-build ;
$(RELEASE)/causeway-spawn: swift-build ;

# install, unlike cp, makes a new file: a node that runs keeps the one it has mapped.
$(PRIV)/libcauseway.so: $(RELEASE)/libcauseway.so
	install -D --strip $< $@
$(PRIV)/causeway_loader.so: $(RELEASE)/libcauseway_loader.so
	install -D --strip $< $@
$(PRIV)/causeway-spawn: $(RELEASE)/causeway-spawn
	install -D --strip $< $@
python/_causeway.abi3.so: $(PRIV)/libcauseway.so
	install $< $@
$(PRIV)/python/erlang: python/erlang $(PACKAGE:%=python/%)
	rm -rf $@
	mkdir -p $(@D)
	cd python && cp --parents $(PACKAGE) ../$(@D)
# For the processes of multiprocessing, which get the node's sys.path; in the node the module is built in.
$(PRIV)/python/_causeway.abi3.so: $(PRIV)/libcauseway.so
	mkdir -p $(@D)
	ln -sfn ../libcauseway.so $@

# --- lint ---------------------------------------------------------------------------------------

RUFF := $(VENVS)/lint/bin/ruff --config python/pyproject.toml
# Scripts without .py are known by their first line (its # would begin a comment here).
PYTHON_CODE = python Tests erlang/examples $(wildcard .ci/*.py) $(shell grep -lsE '^.!.*python' .ci/* Tests/Benchmarks/*)

.PHONY: lint-swift
lint-swift: setup
	@echo "== swift format lint"
	@swift format lint --strict --recursive Package.swift Sources Tests

.PHONY: check-traps
check-traps: setup
	@.ci/check-traps

.PHONY: lint-erlang
lint-erlang: build
	@echo "== xref and dialyzer"
	@cd erlang && rebar3 xref && rebar3 dialyzer

.PHONY: lint-python
lint-python: build lint-venv
	@echo "== ruff and stubtest"
	@$(RUFF) check $(PYTHON_CODE)
	@$(RUFF) format --check $(PYTHON_CODE)
	@cd python && PYTHONPATH=. MYPYPATH=. ../$(VENVS)/lint/bin/python -m mypy.stubtest erlang _causeway
