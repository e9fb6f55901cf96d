# Two commands on a fresh machine: `make demo` and `make test`. Both make a virtual environment in .venv first.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test lint unit peers clean

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

# RELION, Chromium and Topaz, for the tests in tests/peers; Debian's only where its package manager is there and may be used.
peers: $(VENV)/.installed-test
	@if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then tools/install-peers; \
	else echo "Not root on Debian: tests with RELION and Chromium run only if these are installed."; fi
	@tools/install-topaz $(VENV)-topaz $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) --editable .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP_INSTALL) --editable ".[test]"
	@touch $@

clean:
	rm -rf $(VENV) $(VENV)-topaz build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
