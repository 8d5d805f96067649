# Each target sets up what it needs; `make help` lists them.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# What can be set, as in: make pytest ARGS="-k tail"
# PYTHON: 3.11 or newer, makes the virtual environment. JOBS: test processes.
# DATA: where the folders flickr8k, coco6k and tinyimagenet_h are, for zoo and zoo-verify.
PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
ARGS ?=
DATA ?= ../shared/data

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check
PROJECTS := pyproject.toml $(wildcard zoo/pyproject.toml plugins/*/pyproject.toml)
LOCAL := $(patsubst %/pyproject.toml,--editable %,$(filter-out pyproject.toml,$(PROJECTS)))
INSTALLED := $(VENV)/.installed
DEMO := $(VENV)/.installed-demo
CHECKPOINTS := zoo/feedback_adapter_zoo/checkpoints

.PHONY: help setup demo test pytest lint style types docs docs-check bench stress coverage zoo zoo-verify clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## Make .venv with the library, the zoo, every plugin and the tools

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(INSTALLED): $(PROJECTS) | $(BIN)/python
	$(PIP) --editable '.[demo,dev,docs]' $(LOCAL)
	touch $(DEMO) $@

$(DEMO): pyproject.toml zoo/pyproject.toml | $(BIN)/python
	$(PIP) --editable '.[demo]' --editable zoo
	touch $@

demo: $(DEMO) ## See predictions on a real photo get better (installs no developer tools)
	$(BIN)/feedback-adapter demo $(ARGS)

test: style ## Everything that must hold: style, import contracts, types, tests, documentation
	@$(MAKE) --jobs $(JOBS) pytest types docs-check

pytest: $(INSTALLED) ## The tests alone: make pytest ARGS="-k tail"
	$(BIN)/pytest -n $(JOBS) $(ARGS)

lint: style types ## Style, import contracts and types

style: $(INSTALLED) ## Style and import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(INSTALLED) ## Types (pyright, strict on feedback_adapter/)
	$(BIN)/pyright

docs: $(INSTALLED) ## Build the documentation into docs/_build/html; a warning is an error
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html

docs-check: docs ## Open every page of the documentation in a real browser (chromium)
	$(BIN)/python docs/check.py docs/_build/html

bench: $(INSTALLED) ## Measure speed and memory against hand-cut models
	$(BIN)/python benchmarks/speed.py $(ARGS)
	$(BIN)/python plugins/feedback-adapter-backward/benchmarks/speed.py
	$(BIN)/python plugins/feedback-adapter-batch/benchmarks/throughput.py

stress: $(INSTALLED) ## Interrupt refinements, and refine in many threads: nothing may stay behind
	$(BIN)/python benchmarks/stress.py $(ARGS)

coverage: $(INSTALLED) ## Sweep one model of every timm and torchvision family
	$(BIN)/python benchmarks/coverage.py $(ARGS)

zoo: $(INSTALLED) ## Train the zoo's checkpoints anew (hours without an accelerator)
	$(BIN)/python zoo/recipes caption-words --data $(DATA)/flickr8k --out $(CHECKPOINTS)/caption-words-lite0 $(ARGS)
	$(BIN)/python zoo/recipes caption-decoder --data $(DATA)/flickr8k --out $(CHECKPOINTS)/flickr8k-caption-lite0
	$(BIN)/python zoo/recipes coco80 --data $(DATA)/coco6k --out $(CHECKPOINTS)/coco80-lite0 $(ARGS)

zoo-verify: $(INSTALLED) ## Measure the zoo's checkpoints and compare with their cards
	$(BIN)/python zoo/recipes verify --data $(DATA) $(ARGS)

clean: ## Remove the environment and everything that was built
	rm -rf $(VENV) docs/_build build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
