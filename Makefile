# Everything runs in a virtual environment of its own; only Python 3.11+ and a package index are assumed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# further arguments of pytest: make test ARGS="tests/quant -q"
ARGS ?=
# a file's tests stay in one process, and the files that start most come first
SIDE_BY_SIDE := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
CSRC := $(foreach end,h cpp cuh cu,$(wildcard csrc/*.$(end) csrc/*/*.$(end) tests/emulator/*/*.$(end) \
  tests/emulator/*/*/*.$(end)))

CLIENTS := build/clients
# transformers would take kernels/ here for the package of that name; ranks import tests
OFFLINE := HF_HUB_OFFLINE=1 PYTHONSAFEPATH=1 PYTHONPATH=$(CLIENTS)/path

CXX ?= g++
SANITIZED := build/sanitize
# the package beside its sanitized library, so that the installed one stays as it is
SANITIZERS := $(foreach name,asan ubsan stdc++,$(shell $(CXX) -print-file-name=lib$(name).so))

.PHONY: help demo test slow gpu bundle coverage sanitize mutants clients lint format hooks clean

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*  ## /make \1\t/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(READY)  ## the main job on an embedded data set, under 3 minutes on 2 cores
	$(BIN)/python -m daqakd.demo

test: $(READY)  ## the ordinary tests, in 2 to 4 processes; ARGS="tests/quant -q" goes to pytest
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) $(ARGS)

slow: $(READY)  ## full products and long runs
	$(BIN)/python -m pytest -m "slow and not gpu" $(ARGS)

gpu:  ## GPU tests and benchmarks in 9 minutes, without pip; DRY=1 walks them without a GPU
	$(if $(wildcard $(READY)),$(BIN)/python,$(PYTHON)) -m benchmarks.gpu $(if $(DRY),--dry)

bundle: $(READY)  ## pack what `make gpu` needs on a machine with torch alone into build/gpu.tar.gz
	DAQAKD_BUILD=cuda $(BIN)/python setup.py -q build_ext --inplace
	$(BIN)/python -m benchmarks.gpu --bundle build/gpu.tar.gz

coverage: $(READY)  ## the ordinary tests with the lines they miss; HTML and XML under build/coverage
	$(BIN)/python -m pytest --cov --cov-report=term --cov-report=html --cov-report=xml $(ARGS)

sanitize: $(READY)  ## wrong arguments to every raw op, with ASan and UBSan in the CPU library
	DAQAKD_BUILD=sanitize $(BIN)/python setup.py -q build_ext --build-temp $(SANITIZED)/temp --build-lib $(SANITIZED)
	rm -rf $(SANITIZED)/daqakd/*/ && cp -r daqakd/*/ daqakd/*.py $(SANITIZED)/daqakd
	LD_PRELOAD="$(SANITIZERS)" ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1 \
	  DAQAKD_FUZZ_SEEDS=12 PYTHONPATH=$(SANITIZED) $(BIN)/python -P -m pytest tests/ops/test_fuzz.py -p no:faulthandler $(ARGS)

mutants: $(READY)  ## faults planted in the CUDA sources, each of which some test must see
	$(BIN)/python -m tests.emulator.mutants $(ARGS)

clients: $(CLIENTS)/.ready  ## the quantizers in timm, torchvision, transformers, Lightning, accelerate, PEFT
	$(OFFLINE) $(CLIENTS)/bin/python -m pytest tests/clients --table $(CLIENTS)/table.md $(ARGS)
	$(OFFLINE) $(CLIENTS)/bin/python -m pytest -m slow tests/export/test_products.py -k gpt2

lint: $(READY)  ## ruff, clang-format, typos, mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(CSRC)
	$(BIN)/typos
	$(BIN)/mypy

format: $(READY)  ## mend what ruff and clang-format can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CSRC)

hooks: $(READY)  ## lint what every commit changes
	$(BIN)/pre-commit install

$(READY): pyproject.toml setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	# torch first: the libraries are built against the torch that is installed
	$(BIN)/pip install --quiet --disable-pip-version-check torch torchvision -c constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[demo,test,lint,build]' -c constraints.txt
	touch $@

# the libraries in the source tree are built there already
$(CLIENTS)/.ready: $(READY)
	$(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/pip install --quiet --disable-pip-version-check torch torchvision -c constraints.txt
	mkdir -p $(CLIENTS)/path && ln -sfn $(CURDIR)/tests $(CLIENTS)/path/tests
	DAQAKD_BUILD=none $(CLIENTS)/bin/pip install --quiet --disable-pip-version-check -e '.[clients,test]' -c constraints.txt
	touch $@

clean:  ## remove the environment and what was built
	rm -rf $(VENV) build dist *.egg-info
