# make demo   install, train a model on handwritten digits and write a report about it
# make test   what must pass before a change is offered
#
# Both start from a bare machine: Python 3.11 or newer and a package index. `make help` lists the rest.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest -n 2

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test test-slow lint format docs install browser clean

help:
	@echo 'make demo       install, train a model on handwritten digits, write a report about it'
	@echo 'make test       install what the tests need and run them, without the slow ones'
	@echo 'make test-slow  run only the slow ones'
	@echo 'make lint       check style, types and the import law'
	@echo 'make format     put the style right where a machine can'
	@echo 'make docs       write the documentation to docs/_build/html'
	@echo 'make install    put everything a contributor needs into $(VENV)'
	@echo 'make clean      remove what the above made; runs/ stays'

# --- what people ask for ---------------------------------------------------------------------------

demo: $(VENV)/.core
	@$(BIN)/limner demo

# Two processes with one thread each: the most that two cores give, and the same numbers everywhere.
test test-slow: export OMP_NUM_THREADS := 1
test: $(VENV)/.dev browser
	@$(PYTEST) -m 'not slow' $(ARGS)

test-slow: $(VENV)/.dev browser
	@$(PYTEST) -m slow --timeout 3600 $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(VENV)/.dev
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs docs/_build/html

install: $(VENV)/.dev

clean:
	rm -rf $(VENV) dist docs/_build docs/reference/generated
	rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find src tests docs -name __pycache__ -type d -prune -exec rm -rf {} +

# --- how it gets there -----------------------------------------------------------------------------
# An empty stamp file in $(VENV) says that a step is done, so that the next call starts at once. A change
# of pyproject.toml or constraints.txt does the installation again.

INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

$(VENV)/.made:
	@command -v $(PYTHON) >/dev/null || \
	  { echo 'limner needs Python 3.11 or newer, and $(PYTHON) is not there; install it, or name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3'; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "limner needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) -V 2>&1); name another: make $(MAKECMDGOALS) PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo '$(PYTHON) cannot make a virtual environment; on Debian or Ubuntu install python3-venv, then call make again'; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.core: $(VENV)/.made pyproject.toml constraints.txt
	@echo 'Installing limner into $(VENV): a minute or two, once.'
	@$(INSTALL) --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.made pyproject.toml constraints.txt
	@echo 'Installing limner with its test, lint and docs tools into $(VENV): a minute or two, once.'
	@$(INSTALL) --editable '.[dev]'
	@touch $(VENV)/.core $@

# The report is tested in a real browser. It comes from the system's packages, where we may install one.
browser:
	@if command -v chromium || command -v chromium-browser || command -v google-chrome; then exit 0; fi >/dev/null; \
	if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
	  echo 'No chromium here: the browser tests will be skipped. On Debian: sudo apt-get install chromium'; exit 0; \
	fi; \
	echo 'Installing chromium for the browser tests.'; \
	export DEBIAN_FRONTEND=noninteractive; \
	{ apt-get update && apt-get install -y --no-install-recommends chromium; } >/dev/null 2>&1 || \
	  echo 'chromium could not be installed: the browser tests will be skipped.'
