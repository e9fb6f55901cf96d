# Two commands on a fresh machine: `make demo` and `make test`. Both make a virtual environment in .venv first.
# `make demo TORCH=cpu` fetches a build of torch without CUDA: 1.3 GB instead of 5 GB.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TORCH ?= default
TORCH_SIZE_default := 5 GB with the CUDA libraries of torch; 'make TORCH=cpu ...' fetches 1.3 GB, for machines without a GPU
TORCH_SIZE_cpu := 1.3 GB, with a torch for CPUs only
TORCH_INDEX_cpu := --extra-index-url https://download.pytorch.org/whl/cpu
ifndef TORCH_SIZE_$(TORCH)
$(error TORCH=$(TORCH) is unknown: use TORCH=cpu, or leave it out)
endif
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check $(TORCH_INDEX_$(TORCH))

# Every version that is installed, in environments that pip makes for building too: older releases of pip read the first, newer ones the second.
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt

.PHONY: demo test lint unit peers long clean

demo: $(VENV)/.installed
	$(BIN)/beamside demo

test: lint unit

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The numerics use one thread in each test process, so that the processes do not get into each other's way.
unit: $(VENV)/.installed-test peers
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal

# What takes minutes: whole sessions over odd folders and with faults, from fixed seeds.
long: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m long tests/long

# RELION, Chromium and Topaz, for the tests in tests/peers; Debian's only where its package manager is there and may be used.
peers: $(VENV)/.installed-test
	@if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then tools/install-peers; \
	else echo "Not root on Debian: tests with RELION and Chromium run only if these are installed."; fi
	@tools/install-topaz $(VENV)-topaz $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Beamside needs Python 3.11 or newer, and $(PYTHON) is older: make PYTHON=python3.12 ..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV): about $(TORCH_SIZE_$(TORCH)). This takes a few minutes."
	$(PIP_INSTALL) --editable .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP_INSTALL) --editable ".[test]"
	@touch $@

clean:
	rm -rf $(VENV) $(VENV)-topaz build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
