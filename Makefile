# `make report` and `make test` each do all they need, from a fresh clone on.
# Variables to set on the command line: PYTHON=python3.12  PROFILE=smoke|quick|full  CC=clang

PYTHON  ?= python3
PROFILE ?= quick
SYSTEM  ?= $(shell uname -s)
CPU     ?= $(shell uname -m)

VENV    := .venv
BIN     := $(VENV)/bin
STAMP   := $(VENV)/.installed
OUT     := $(CURDIR)/build/native
COMPILER = $(if $(filter default,$(origin CC)),gcc,$(firstword $(CC)))
C_FILES  = $(shell find native -name '*.c' -o -name '*.h')

export LC_ALL := C.UTF-8

# One sentence for an unsupported machine, rather than a failure somewhere inside.
ifneq ($(filter-out help clean,$(or $(MAKECMDGOALS),help)),)
ifneq ($(SYSTEM)/$(filter x86_64 aarch64,$(CPU)),Linux/$(CPU))
$(error hakmem runs on Linux on x86-64 or aarch64 only, and this is $(SYSTEM) on $(CPU))
endif
endif

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup build native report reports test ctest soak bench traces lab lint format lock generated clean

help: ## list the targets
	@echo "usage: make TARGET [PROFILE=smoke|quick|full] [PYTHON=python3.12] [CC=clang]"
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(STAMP) ## create .venv from the hash-pinned requirements.lock

$(STAMP): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "there is no $(PYTHON) on this machine: install it with  sudo apt-get install python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("hakmem needs Python 3.11 or later, and $(PYTHON) is %d.%d: name another with make PYTHON=python3.12" % v[:2])'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) has no venv module: install it with  sudo apt-get install python3-venv" >&2; exit 1; }
	@echo "setup: installing the locked packages into $(VENV) (1 to 3 minutes the first time, 1.3 GB on disk)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-input --only-binary :all: --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-input --no-deps --no-build-isolation -e .
	@touch $@

# Content-addressed: what stands in the store already is not compiled again, whoever asks for it.
build: $(STAMP) ## compile what studies measure into build/store
	@$(BIN)/python -m hakmem build >/dev/null

native: ## compile the allocator and its drivers into build/native
	@command -v $(COMPILER) >/dev/null || { echo "there is no C compiler $(COMPILER) on this machine: install it with  sudo apt-get install gcc" >&2; exit 1; }
	@$(MAKE) --no-print-directory -C native OUT=$(OUT)

report: build ## sweep the LEAN gates and write reports/lean_sweep.html (PROFILE=smoke|quick|full)
	@$(BIN)/python -m hakmem report 20_lean_sweep --profile $(PROFILE)

reports: build ## every study, one after another, and reports/index.html (PROFILE=smoke|quick|full)
	@$(BIN)/python -m hakmem reports --profile $(PROFILE)

soak: native ## ten minutes of everything at once, speed first and Lean side by side; fails if resident memory drifts
	@$(MAKE) --no-print-directory -C native OUT=$(OUT) soak

bench: build ## throughput and RSS of every installed allocator, in the terminal (quick: 5 minutes)
	@$(BIN)/python -m hakmem bench --profile $(PROFILE)

traces: build ## record larger traces of installed programs into build/traces
	@data/traces/make.sh large $(CURDIR)/$(BIN)/hakmem

# The settings keep JupyterLab from asking for news and updates; the prefix lets a notebook refuse another kernel.
LAB_SETTINGS = --ServerApp.ip=127.0.0.1 --ServerApp.root_dir=$(CURDIR) --LabApp.app_settings_dir=$(CURDIR)/hakmem/templates/lab \
    --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb $(if $(filter 0,$(shell id -u)),--allow-root)

lab: build ## open JupyterLab on loopback, with a token (LAB=--no-browser prints its address only)
	@WORKBENCH_PREFIX=$(CURDIR)/$(VENV) $(BIN)/jupyter-lab $(LAB_SETTINGS) $(LAB)

lint: $(STAMP) ## ruff, mypy, import-linter, clang-format, C warnings as errors
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/mypy --no-error-summary hakmem
	@found=$$($(BIN)/lint-imports --no-logo) || { echo "$$found"; exit 1; }
	@$(BIN)/clang-format --dry-run -Werror $(C_FILES)
	@$(MAKE) --no-print-directory -C native OUT=$(OUT) lint
	@echo "lint: nothing found"

format: $(STAMP) ## put C and Python sources into the one style
	@$(BIN)/ruff check --quiet --fix-only
	@$(BIN)/ruff format --quiet
	@$(BIN)/clang-format -i $(C_FILES)

ctest: native ## the C tests alone, also under sanitizers
	@$(MAKE) --no-print-directory -C native OUT=$(OUT) test

test: lint ctest ## lint, then the C tests, then the Python tests (-j2 runs the first two side by side)
	@$(BIN)/python -m pytest

# After a change of a bound in pyproject.toml that the pins still satisfy, nothing is to be done; else `make lock`, then
# `make generated test`, and commit pyproject.toml, requirements.lock and environment.yml together.
lock: ## pin the newest allowed packages into requirements.lock (needs uv)
	@command -v uv >/dev/null || { echo "make lock needs uv: install it with  pip install uv" >&2; exit 1; }
	@uv pip compile --quiet --upgrade --universal --generate-hashes --no-emit-index-url --python-version 3.11 \
	    --all-extras --no-header --no-annotate pyproject.toml --output-file requirements.lock

generated: $(STAMP) ## write environment.yml and docs/gates.md anew from their sources
	@$(BIN)/python -m hakmem.environment
	@$(BIN)/python -m hakmem.builds.gates

clean: ## remove what was built (keeps .venv, reports and ledgers)
	rm -rf build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find hakmem tests -name __pycache__ -type d -prune -exec rm -rf {} +
