# The commands of this repository. Each sets up what it needs; `make` alone lists them.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUNTIME ?= process
WORDS ?=
# Much of the suite waits for other programs: two tests at once take two thirds of the time on two cores.
PYTEST_ARGS ?= -n 2 --dist worksteal
WHISPERX_PYTEST_ARGS ?=
SERVICES := $(CURDIR)/services
# Our own packages from the checkout, for the tests and for what they start.
WHISPERX_PATH := $(SERVICES)/common/src:$(SERVICES)/faster-whisper/src:$(SERVICES)/whisperx/src

.DEFAULT_GOAL := help
.PHONY: help demo demo-whisperx test test-whisperx lint breaks bench bench-speech bench-whisperx docs lock clean

help:
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(VENV)/.demo ## show the main job on real speech (RUNTIME=compose: with containers)
	@$(BIN)/autostart demo --runtime $(RUNTIME)

test: $(VENV)/.test lint ## lint, type-check and run every test that this machine can run
	$(BIN)/python -m pytest $(PYTEST_ARGS)

demo-whisperx: $(VENV)/.demo ## the same with the WhisperX service beside it (2.5 GB into ~/.cache, once)
	@environment=$$(services/whisperx/tests/environment $(PYTHON)) && PYTHONPATH=$(WHISPERX_PATH) \
		$(BIN)/autostart demo --whisperx $$environment/bin/python

test-whisperx: $(VENV)/.demo ## hear real recordings with the real whisperx, in an environment of its own in ~/.cache (2.5 GB)
	environment=$$(services/whisperx/tests/environment $(PYTHON)) && PYTHONPATH=$(WHISPERX_PATH) \
		AUTOSTART_PYTHON=$(CURDIR)/$(BIN)/python $$environment/bin/python -m pytest services/whisperx/tests $(WHISPERX_PYTEST_ARGS)

lint: $(VENV)/.test ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --config-file services/faster-whisper/pyproject.toml
	$(BIN)/mypy --config-file services/whisperx/pyproject.toml

breaks: $(VENV)/.test ## break the code on purpose, and see the tests notice (WORDS="lifecycle …")
	$(BIN)/python tests/breaking.py $(WORDS)

bench: $(VENV)/.test ## print the tables of docs/benchmarks.md
	$(BIN)/python -m bench

bench-whisperx: $(VENV)/.test ## the same for the WhisperX service, from asleep to who said what
	environment=$$(services/whisperx/tests/environment $(PYTHON)) && \
		WHISPERX_PYTHON=$$environment/bin/python $(BIN)/python -m bench whisperx

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
		services/common/pyproject.toml services/faster-whisper/pyproject.toml services/whisperx/pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r $<
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
		-e . -e services/common -e services/faster-whisper -e services/whisperx
	@touch $@

# The only place where versions change. Needs uv: `pip install uv`.
SOURCES := pyproject.toml services/common/pyproject.toml services/faster-whisper/pyproject.toml
COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	--no-emit-package autostart --no-emit-package autostart-speech-common
# For one platform, as torch is; ARM takes what no marker keeps from it.
COMPILE_WHISPERX := uv --project services/whisperx pip compile --quiet --python-platform x86_64-manylinux_2_28 \
	--no-strip-markers --python-version 3.11 --generate-hashes --no-header --no-annotate \
	--no-emit-package autostart-speech-common
NO_CUDA := $(addprefix --no-emit-package , triton $(addprefix nvidia-, $(addsuffix -cu12, cublas cuda-cupti cuda-nvrtc \
	cuda-runtime cudnn cufft cufile curand cusolver cusparse cusparselt nccl nvjitlink nvtx)))
NO_TORCH := $(addprefix --no-emit-package , torch filelock fsspec jinja2 markupsafe mpmath networkx setuptools sympy \
	typing-extensions)
lock: ## resolve all requirements anew (UPGRADE=--upgrade for newer ones)
	$(COMPILE) $(UPGRADE) pyproject.toml --extra build -o requirements/gateway.lock
	$(COMPILE) $(UPGRADE) $(SOURCES) --extra demo --extra build -o requirements/demo.lock
	$(COMPILE) $(UPGRADE) $(SOURCES) --extra test --extra build -c requirements/demo.lock -o requirements/test.lock
	$(COMPILE) $(UPGRADE) services/faster-whisper/pyproject.toml -c requirements/demo.lock \
		-o services/faster-whisper/requirements.lock
	$(COMPILE) $(UPGRADE) services/faster-whisper/requirements-cuda.in -o services/faster-whisper/requirements-cuda.lock
	$(COMPILE_WHISPERX) $(UPGRADE) $(NO_CUDA) services/whisperx/pyproject.toml -o services/whisperx/requirements.lock
	$(COMPILE_WHISPERX) $(UPGRADE) $(NO_TORCH) services/whisperx/requirements-cuda.in \
		-c services/whisperx/requirements.lock -o services/whisperx/requirements-cuda.lock
	$(COMPILE_WHISPERX) $(UPGRADE) $(NO_CUDA) services/whisperx/pyproject.toml --extra test \
		-c services/whisperx/requirements.lock -o requirements/whisperx-test.lock

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) .pytest_cache .hypothesis .mypy_cache .ruff_cache
