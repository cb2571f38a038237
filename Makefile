# Each target does its own set-up: on a fresh clone it needs Python 3.10 or newer, and make.
#   make test PYTHON=python3.12          another interpreter for the environment
#   make test VENV=/somewhere/else       another place for it
#   make test SYSTEM=1 PYTHON=python3    no environment: PYTHON and PATH as they are, for instance
#                                        on a GPU machine that has torch and pytest already
#   make test TESTS=tests/host           a part of the tests

PYTHON ?= python3
VENV ?= .venv
TESTS ?= tests

ifdef SYSTEM
PY := $(PYTHON)
else
BIN := $(VENV)/bin/
PY := $(BIN)python
SETUP := $(VENV)/setup
endif

# Without a driver a CUDA build of torch is of no use: take the pinned one.
DRIVER := $(wildcard /proc/driver/nvidia/version /dev/nvidiactl)
EXTRA := $(if $(DRIVER),,[pinned])
install = $(PY) -m pip install --quiet --disable-pip-version-check -e '$(1)' && touch $@

HEADERS = $(shell find csrc -name '*.cuh')

.PHONY: demo test lint format bench
.DELETE_ON_ERROR:

demo: $(SETUP:%=%-run)
	$(PY) -m deep_gemm demo

test: $(SETUP:%=%-dev)
	$(PY) -m pytest -n auto --maxprocesses 8 --dist loadgroup $(TESTS)

lint: $(SETUP:%=%-dev)
	$(BIN)ruff check .
	$(BIN)ruff format --check .
	$(BIN)mypy
	$(BIN)clang-format --dry-run --Werror $(HEADERS)
	$(PY) tools/check_source.py

format: $(SETUP:%=%-dev)
	$(BIN)ruff check --fix-only --quiet .
	$(BIN)ruff format .
	$(BIN)clang-format -i $(HEADERS)

bench: $(SETUP:%=%-bench)
	$(PY) -m benchmarks

$(VENV)/setup-run: $(VENV)/setup-venv pyproject.toml setup.py
	$(call install,.$(EXTRA))

$(VENV)/setup-dev: $(VENV)/setup-venv pyproject.toml setup.py
	$(call install,.[dev])

$(VENV)/setup-bench: $(VENV)/setup-venv pyproject.toml setup.py
	$(call install,.[bench])

$(VENV)/setup-venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "$(PYTHON) must be Python 3.10 or newer. Name another: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) has no venv module. Install it (Debian: apt-get install python3-venv)," \
	    "or name another Python: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	touch $@
