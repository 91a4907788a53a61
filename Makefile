# The commands of this repository. Each sets up what it needs; `make` alone lists them.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUNTIME ?= process
WORDS ?=
# Much of the suite waits for other programs: two tests at once take two thirds of the time on two cores.
PYTEST_ARGS ?= -n 2 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help demo test lint breaks bench bench-speech docs lock clean

help:
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

demo: $(VENV)/.demo ## show the main job on real speech (RUNTIME=compose: with containers)
	@$(BIN)/autostart demo --runtime $(RUNTIME)

test: $(VENV)/.test lint ## lint, type-check and run every test that this machine can run
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(VENV)/.test ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --config-file services/faster-whisper/pyproject.toml

breaks: $(VENV)/.test ## break the code on purpose, and see the tests notice (WORDS="lifecycle …")
	$(BIN)/python tests/breaking.py $(WORDS)

bench: $(VENV)/.test ## print the tables of docs/benchmarks.md
	$(BIN)/python -m bench

bench-speech: $(VENV)/.test ## the same for the speech server, beside the bare library (an hour)
	$(BIN)/python -m bench listen pace accuracy clients hours

docs: $(VENV)/.test ## write the generated pages and the JSON schema anew
	$(BIN)/python -m autostart.config.reference
	$(BIN)/python -m autostart.metrics >docs/metrics.md
	$(BIN)/python -m autostart.proxy.reference

# A Debian without python3-venv gets it where we may install it, and a plain word where we may not.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "autostart needs Python 3.11 or newer; this is $$($(PYTHON) -V)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null \
		|| { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -qq -y python3-venv; } \
		|| { echo "please install python3-venv: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Dependencies come by hash; our own packages are built with what came by hash, without isolation.
$(VENV)/.demo $(VENV)/.test: $(VENV)/.%: requirements/%.lock $(VENV)/bin/python pyproject.toml \
		services/common/pyproject.toml services/faster-whisper/pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r $<
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
		-e . -e services/common -e services/faster-whisper
	@touch $@

# The only place where versions change. Needs uv: `pip install uv`.
SOURCES := pyproject.toml services/common/pyproject.toml services/faster-whisper/pyproject.toml
COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	--no-emit-package autostart --no-emit-package autostart-speech-common
lock: ## resolve all requirements anew (UPGRADE=--upgrade for newer ones)
	$(COMPILE) $(UPGRADE) pyproject.toml --extra build -o requirements/gateway.lock
	$(COMPILE) $(UPGRADE) $(SOURCES) --extra demo --extra build -o requirements/demo.lock
	$(COMPILE) $(UPGRADE) $(SOURCES) --extra test --extra build -c requirements/demo.lock -o requirements/test.lock
	$(COMPILE) $(UPGRADE) services/faster-whisper/pyproject.toml -c requirements/demo.lock \
		-o services/faster-whisper/requirements.lock
	$(COMPILE) $(UPGRADE) services/faster-whisper/requirements-cuda.in -o services/faster-whisper/requirements-cuda.lock

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) .pytest_cache .hypothesis .mypy_cache .ruff_cache
