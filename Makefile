# Everything runs in a virtual environment of its own; only Python 3.11+ and a package index are assumed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test slow gpu lint clean

demo: $(READY)  ## the main job on an embedded data set, under 3 minutes on 2 cores
	$(BIN)/python -m daqakd.demo

test: $(READY)  ## the ordinary tests
	$(BIN)/python -m pytest

slow: $(READY)  ## full products and long runs
	$(BIN)/python -m pytest -m "slow and not gpu"

gpu: $(READY)  ## build, GPU tests, benchmarks in under 9 minutes; DRY=1 walks it without a GPU
	$(BIN)/python -m benchmarks.gpu $(if $(DRY),--dry)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(READY): pyproject.toml setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	# torch first: the libraries are built against the torch that is installed
	$(BIN)/pip install --quiet --disable-pip-version-check torch torchvision -c constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[demo,test,lint,build]' -c constraints.txt
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
