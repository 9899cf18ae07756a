# Everything from a clean clone with Python 3.11+, make and pip. `make quickstart` and `make test` do all set-up.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= 2
# What pip builds the native kernel from: a change of it installs again.
NATIVE := native/CMakeLists.txt $(wildcard mixlab/ops/native/*.cpp mixlab/ops/native/*.h)

.PHONY: help quickstart test test-fast lint docs clean
help:
	@echo "make quickstart  install, then compare token mixers on a segmented brain (about 4 minutes after installation)"
	@echo "make test        install what tests need, then run the whole suite"
	@echo "make test-fast   the same without the slow tests"
	@echo "make lint        ruff, mypy, import contracts"
	@echo "make docs        build the documentation into docs/_build/html"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "mixlab: expected Python 3.11 or newer, got $$($(PYTHON) --version), try make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.stamp-run: $(BIN)/python pyproject.toml $(NATIVE)
	@echo "Installing mixlab into $(VENV) (PyTorch is large: a few minutes, once)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.stamp-dev: $(BIN)/python pyproject.toml $(NATIVE)
	@echo "Installing mixlab and what its tests need into $(VENV)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/.stamp-run

quickstart: $(VENV)/.stamp-run
	$(BIN)/mixlab study run quickstart

test: $(VENV)/.stamp-dev
	$(BIN)/python -m pytest -n $(WORKERS)

test-fast: $(VENV)/.stamp-dev
	$(BIN)/python -m pytest -n $(WORKERS) -m "not slow"

lint: $(VENV)/.stamp-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.stamp-dev
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo "Documentation: docs/_build/html/index.html"

clean:
	rm -rf docs/_build docs/generated build .pytest_cache .mypy_cache .ruff_cache
