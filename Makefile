# medvl: `make demo` shows everything, `make test` proves it. Needs Python 3.11+, make and a package index.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.medvl-ready
# A URL here takes torch from another index, for instance a build for your GPU: see docs/how-to/use-a-gpu.md
TORCH_INDEX ?=
PYTEST_ARGS ?=
CODE   := medvl pipelines ui

.DEFAULT_GOAL := help
.PHONY: help setup demo test check lint format types imports test-fast test-slow model evaluate bench docs wheel clean distclean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP)  ## make .venv with everything in it

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "medvl needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
	  echo "Python could not make a virtual environment; on Debian: apt-get install python3-venv"; rm -rf $(VENV); exit 1; }
	$(BIN)/python -m pip install -q -c constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup  ## phantom studies as DICOM, the bundled model, the findings table, the viewer
	$(BIN)/medvl demo --out demo

test: setup  ## every test but the slow ones
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: lint types imports test-fast  ## format, lint, types, import rules, fast tests

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: setup  ## put the code in order
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: setup
	$(BIN)/mypy $(CODE)

imports: setup
	$(BIN)/lint-imports --no-logo

test-fast: setup
	$(BIN)/python -m pytest -m 'not slow and not browser and not data and not gpu' $(PYTEST_ARGS)

test-slow: setup  ## the tests that CI adds
	$(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

model: setup  ## train the bundled model anew (hours)
	$(BIN)/medvl train phantom-demo --out runs/phantom-demo

evaluate: setup  ## the held-out table of the bundled model
	$(BIN)/medvl evaluate phantom-demo --out runs/evaluation

bench: setup  ## our reader and preprocessing beside other people's, as ratios
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[bench]'
	$(BIN)/python benchmarks/ingest.py
	$(BIN)/python benchmarks/preprocess.py

docs: setup  ## write docs/reference/cli.md anew
	$(BIN)/python docs/cli_reference.py

wheel: setup  ## build the wheel into dist/
	$(BIN)/python -m pip wheel -q --no-deps --wheel-dir dist .

clean:  ## remove what was built, keep .venv
	rm -rf build dist demo *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find $(CODE) configs tests benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean  ## remove .venv as well
	rm -rf $(VENV)
