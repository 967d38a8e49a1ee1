# `make quickstart` and `make test` need only Python 3.11, git and a package index.
PYTHON ?= python3.11
BIN = .venv/bin
export TF_CPP_MIN_LOG_LEVEL = 3

.PHONY: quickstart develop test test-torch lint format benchmark benchmark-workers baselines contact-sheet clean

quickstart: .venv/examples
	$(BIN)/python examples/quickstart.py

# Go-to-definition and completion in editors (jedi, pyright); again after a module is added.
develop: .venv/test
	$(BIN)/python setup.py --quiet editors

test: lint
	$(BIN)/python -m pytest

# Installs Torch, in its usual build several gigabytes.
test-torch: .venv/test .venv/torch
	LOSSLANDSCAPE_BACKENDS=torch $(BIN)/python -m pytest tests/test_backends.py

lint: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

benchmark: .venv/examples
	$(BIN)/python benchmarks/memory.py
	PYTHONPATH=examples $(BIN)/python benchmarks/speed.py

# Some ten minutes, apart from the others since Dask is not among what the examples need.
benchmark-workers: .venv/test
	PYTHONPATH=examples:benchmarks $(BIN)/python benchmarks/workers.py

# Draws the images anew that tests/test_plotting.py compares with: look at them before you commit.
baselines: .venv/test
	$(BIN)/python -m pytest -o addopts= --mpl-default-style=default --mpl-generate-path=tests/baseline \
		tests/test_plotting.py -k look

# Every plot under settings that break figures, for a look after changes.
contact-sheet: .venv/examples
	$(BIN)/python examples/contact_sheet.py

# A stamp per set of extras, so that each is installed once and again after a change.
.venv/%: setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	touch $@

clean:
	rm -rf .venv build *.egg-info
