# The main job: make extract train score. Every target makes .venv and installs what it needs on first use.
RECIPE ?= demo
ARGS   ?=
PYTHON ?= python3
BIN    := .venv/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint scripts/constraints.txt

.PHONY: run extract train score report status toy test test-all interop cluster-test bench gpu lint types demo-model
.NOTPARALLEL:

extract train score report status: .venv/installed
	@$(BIN)/unmix $@ $(RECIPE) $(ARGS)

run: .venv/installed
	@$(BIN)/unmix run $(RECIPE) $(ARGS)

# Small models where the truth is known; pages into runs/toy. About a quarter of an hour on two cores; ARGS=--quick for a glance.
toy: .venv/installed
	@$(BIN)/unmix toy $(ARGS)

# Module fixtures are made once where neighbours stay together (worksteal); what many processes import is compiled once.
test test-all: export PYTHONDONTWRITEBYTECODE =

test: .venv/installed-dev
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not gpu and not slurm" $(ARGS)

test-all: .venv/installed-dev
	$(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

# What other libraries read of ours and write for us, by the libraries themselves. The last line of names cannot be had with what
# it asks for, and does without.
interop: .venv/installed-dev
	@$(PIP) --editable '.[dev,interop]'
	@$(PIP) --no-deps circuit-tracer dictionary-learning nnsight python-socketio python-engineio simple-websocket wsproto bidict
	$(BIN)/python -m pytest -m interop tests/stores $(ARGS)

# On a Slurm of this machine, which needs root and Debian's packages (scripts/slurm-local.sh says which); skipped without.
# Some ten minutes.
cluster-test: .venv/installed-dev
	@eval "$$(scripts/slurm-local.sh start)"; trap 'scripts/slurm-local.sh stop' EXIT; \
	$(BIN)/python -m pytest -m slurm $(ARGS)

# Speed against other libraries and against memory; figures into runs/bench. About half an hour on two cores.
bench: .venv/installed-dev
	$(BIN)/python -m scripts.bench_store
	$(BIN)/python -m scripts.bench_extract
	$(BIN)/python -m scripts.bench_train
	$(BIN)/python -m scripts.bench_neighbour
	$(BIN)/python -m scripts.bench_rotation
	$(BIN)/python -m scripts.bench_score

# On a machine with a GPU: the tests that need one, then speeds; figures and a table into runs/bench/gpu-DEVICE.*.
gpu: .venv/installed-dev
	@$(BIN)/python -m scripts.bench_gpu --check
	@$(BIN)/python -m pytest -m gpu $(ARGS); tests=$$?; $(BIN)/python -m scripts.bench_gpu && exit $$tests

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed-dev
	$(BIN)/pyright

# The embedded model again, from scratch: about 90 minutes on two cores.
demo-model: .venv/installed-dev
	$(BIN)/python scripts/make_demo_model.py --out pipeline/assets/demo

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"unmix needs Python 3.11 or newer, $(PYTHON) is {sys.version.split()[0]}: make PYTHON=…")'
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml scripts/constraints.txt | .venv/bin/python
	@echo "installing into .venv (some minutes)"
	@$(PIP) --editable .
	@touch $@

.venv/installed-dev: pyproject.toml scripts/constraints.txt | .venv/bin/python
	@echo "installing into .venv, with what the tests need (some minutes)"
	@$(PIP) --editable '.[dev]'
	@touch $@ .venv/installed
