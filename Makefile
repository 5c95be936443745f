# Everything runs in .venv, which these targets make and keep up to date by themselves.
#   make textbook    the textbook experiment, into runs/textbook
#   make example     a small transformer, three decay rules side by side, into runs/pride
#   make test        every check: lint, types, imports, tests
#   make test-peers  tests whose oracle is a large other library
#   make lint        ruff, pyright, import-linter
#   make docs        the documentation, its notebooks executed
#   make browser     Chromium and a Chinese font, if they are missing and this machine allows it
#   make bench       ours against others, in one run

PYTHON ?= python3
BIN := .venv/bin
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# The main job's settings, say: make textbook ARGS="--lambda 0,3 --seeds 20"
ARGS ?=

.PHONY: textbook example test test-peers lint docs bench browser clean

textbook: .venv/.installed
	$(BIN)/weightdecay textbook $(ARGS)

example: .venv/.installed
	$(BIN)/python examples/pride.py $(ARGS)

# Two processes, one thread each: threads of several processes that wait for each other take many times as long.
test: lint browser
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not peer"

test-peers: .venv/.installed-dev .venv/.installed-peers
	$(BIN)/pytest -m peer tests

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

docs: .venv/.installed-docs browser
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

# Tests of pages skip themselves, loudly, where this does not succeed.
browser:
	@command -v chromium chromium-browser google-chrome > /dev/null || \
		{ command -v apt-get > /dev/null && test "$$(id -u)" = 0 && \
		  echo "installing chromium (apt-get)" && apt-get update -qq > /dev/null && \
		  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium fonts-noto-cjk > /dev/null; } || \
		echo "NO BROWSER: pages are not tested and have no pictures; install chromium by hand"

bench: .venv/.installed-dev .venv/.installed-peers
	$(BIN)/python benchmarks/all.py

clean:
	rm -rf .venv docs/_build runs

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: Python 3.11 or newer is needed; say which: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv .venv

# One stamp for the package and one for each extra: a second run installs nothing.
.venv/.installed: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/pip install --quiet -c constraints.txt -e .
	@touch $@

.venv/.installed-%: .venv/.installed
	$(BIN)/pip install --quiet -c constraints.txt -e ".[$*]"
	@touch $@
