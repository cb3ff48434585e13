# Needs Python 3.11 or newer, pip, make and git; everything else goes into .venv, once. After that no network is used.
# Another Python: make demo PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev

.PHONY: help demo test check clean

help:
	@echo "make demo    answer questions about the example images; results in runs/demo"
	@echo "make test    checks, then the whole test suite"
	@echo "make check   style, formatting and types only"
	@echo "make clean   remove caches and build leftovers; the environment stays in $(VENV)"

demo: $(INSTALLED)
	@$(BIN)/openflorence demo --out runs/demo

test: check
	@$(BIN)/python -m pytest -n 2 --dist worksteal

check: $(INSTALLED_DEV)
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check . || { echo "format with: $(BIN)/ruff format ." >&2; exit 1; }
	@$(BIN)/mypy --no-error-summary

clean:
	@rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis runs/demo
	@find openflorence recipes benchmarks tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing OpenFlorence into $(VENV). This happens once and takes a few minutes: torch is large." >&2
	@$(PIP) install -c constraints.txt "setuptools>=69"
	@$(PIP) install -c constraints.txt --no-build-isolation -e .
	@touch $@

$(INSTALLED_DEV): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing OpenFlorence and its tests into $(VENV). This happens once and takes a few minutes." >&2
	@$(PIP) install -c constraints.txt "setuptools>=69"
	@$(PIP) install -c constraints.txt --no-build-isolation -e '.[dev]'
	@touch $@ $(INSTALLED)

# The link is the target, so an environment that lost its Python is made anew; stamps of the lost one go with it.
$(BIN)/python:
	@command -v "$(PYTHON)" >/dev/null || { \
		echo "There is no '$(PYTHON)' here. Install Python 3.11 or newer, or name one: make PYTHON=/path/to/python" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "OpenFlorence needs Python 3.11 or newer; '$(PYTHON)' is $$("$(PYTHON)" --version 2>&1)." \
			"Name another: make PYTHON=python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "This Python cannot make environments: install its venv module (Debian, Ubuntu: apt install python3-venv)." >&2; \
		exit 1; }
	@rm -f $(INSTALLED) $(INSTALLED_DEV)
	@"$(PYTHON)" -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
