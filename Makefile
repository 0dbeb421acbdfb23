# make run         sets up .venv and runs the recipe RECIPE (ARGS="--a.b=c" overrides its settings)
# make claims      runs RECIPE for seeds 0 to 2 and what the paper's claims need beyond, and writes the ledger (SEEDS=0,1,2)
# make test        sets up .venv and checks style, types and behaviour
# make setup       sets up .venv alone; PYTHON=python3.12 chooses the interpreter
# make pictures    draws the README's pictures from the finished run RUN, with a Chromium that is there
# make test-system installs what some tests need of the system, Chromium and PostgreSQL, where that is Debian and we may
# make test-slow   runs the checks that take minutes, and installs lm-eval for them
# make clean       removes what set-up and tests made, and leaves runs/ alone
#
# Works with any POSIX shell and with make 3.81 (macOS).

PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
RECIPE ?= miniature
SEEDS ?= 0,1,2
ARGS ?=

# Tests that need public data look for it here and are skipped where the folder is missing.
LLAMAHERD_DATA ?= ../shared/data
ifneq ($(wildcard $(LLAMAHERD_DATA)/.),)
export LLAMAHERD_DATA := $(abspath $(LLAMAHERD_DATA))
endif

# Idle OpenMP threads sleep: a spinning pair beside another busy process runs many times slower.
export OMP_WAIT_POLICY ?= PASSIVE

TORCH = torch>=2.11,<2.14
TORCH_TESTED = torch==2.13.0
HAS_TORCH = import sys, torch; sys.exit(not (2, 11) <= tuple(map(int, torch.__version__.split(".")[:2])) < (2, 14))

VENV_PYTHON = .venv/bin/python
PIP = $(VENV_PYTHON) -m pip --disable-pip-version-check

# As pip does for packages that are no editable ones: where Python may write no bytecode, every command would compile all of this.
COMPILED = $(VENV_PYTHON) -m compileall -q src

RUN ?= runs/miniature

.PHONY: help setup run claims test test-system test-slow pictures clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

setup: .venv/.installed

run: .venv/.installed
	.venv/bin/llamaherd run $(RECIPE) $(ARGS)

claims: .venv/.installed
	.venv/bin/llamaherd claims $(RECIPE) --seeds $(SEEDS) $(ARGS)

# Files in the order that tests/conftest.py gives them: by default some of the longest come last, and one core waits for the other.
test: .venv/.installed-dev
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m ruff format --check --quiet .
	$(VENV_PYTHON) -m mypy
	@$(COMPILED)
	$(VENV_PYTHON) -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test-slow: .venv/.installed-clients
	$(VENV_PYTHON) -m pytest -m slow

# Without rights, without apt-get or without a network the tests that need them are left out, and `make test` says so.
test-system:
	@missing=; \
	command -v chromium >/dev/null 2>&1 || command -v google-chrome >/dev/null 2>&1 || missing="chromium"; \
	ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null 2>&1 || missing="$$missing postgresql"; \
	if test -z "$$missing"; then echo "test-system: Chromium and PostgreSQL are there"; exit 0; fi; \
	if ! command -v apt-get >/dev/null 2>&1; then echo "test-system: no apt-get here; install by hand:" $$missing; exit 0; fi; \
	if test "`id -u`" = 0; then sudo=; elif sudo -n true 2>/dev/null; then sudo="sudo -n"; \
	else echo "test-system: neither root nor sudo; install by hand:" $$missing; exit 0; fi; \
	echo "test-system: installing with apt-get:" $$missing; \
	{ $$sudo apt-get update -qq && \
	  $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; } >/dev/null || \
	  echo "test-system: apt-get failed; the tests that need them are left out:" $$missing

pictures: .venv/.installed
	$(VENV_PYTHON) docs/pictures.py $(RUN)

clean:
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache .hypothesis dist
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.installed-dev: .venv/.installed
	@echo "Installing what the tests need ..."
	@$(PIP) install --quiet --constraint $(CONSTRAINTS) --editable ".[dev]"
	@touch $@

.venv/.installed-clients: .venv/.installed-dev
	@echo "Installing lm-eval ..."
	@$(PIP) install --quiet --constraint $(CONSTRAINTS) --editable ".[dev,clients]"
	@touch $@

.venv/.installed: .venv/.torch pyproject.toml $(CONSTRAINTS)
	@echo "Installing llamaherd and what it needs into .venv ..."
	@$(PIP) install --quiet --constraint $(CONSTRAINTS) --editable .
	@$(COMPILED)
	@touch $@

# A torch that PYTHON already has is used: the new environment sees that interpreter's packages. The .pth line is for
# an interpreter that lives in a virtual environment itself, whose packages --system-site-packages does not show.
.venv/.torch:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "$(PYTHON) is missing or older than Python 3.11 (`$(PYTHON) --version 2>&1`);" \
	    "install a newer one, or name it: make PYTHON=python3.12 setup" >&2; exit 1; }
	@if $(PIP) --version >/dev/null 2>&1; then :; \
	elif $(PYTHON) -c '$(HAS_TORCH)' 2>/dev/null; then \
	  echo "Making .venv on top of the torch that $(PYTHON) has ..."; \
	  rm -rf .venv && $(PYTHON) -m venv --system-site-packages .venv && \
	  $(PYTHON) -c 'import os, torch; print(os.path.dirname(os.path.dirname(torch.__file__)))' \
	    > "`$(VENV_PYTHON) -c 'import sysconfig; print(sysconfig.get_path("purelib"))'`/torch-found.pth"; \
	else \
	  echo "Making .venv ..."; rm -rf .venv && $(PYTHON) -m venv .venv; \
	fi
	@if $(VENV_PYTHON) -c '$(HAS_TORCH)' 2>/dev/null; then :; \
	elif test "`uname`" = Linux && ! nvidia-smi -L >/dev/null 2>&1; then \
	  echo "Installing torch; without an NVIDIA GPU a CPU build does, where the package index offers one ..."; \
	  $(PIP) install --quiet --constraint $(CONSTRAINTS) '$(TORCH_TESTED)+cpu' 2>/dev/null || \
	  $(PIP) install --quiet --constraint $(CONSTRAINTS) '$(TORCH_TESTED)' 2>/dev/null || \
	  $(PIP) install --quiet --constraint $(CONSTRAINTS) '$(TORCH)'; \
	else \
	  echo "Installing torch ..."; $(PIP) install --quiet --constraint $(CONSTRAINTS) '$(TORCH)'; \
	fi
	@touch $@
