# `make quickstart` and `make test` need only Python 3.11, git and a package index.
PYTHON ?= python3.11
BIN = .venv/bin
export TF_CPP_MIN_LOG_LEVEL = 3

.PHONY: quickstart develop test test-torch lint format benchmark benchmark-curvature benchmark-workers baselines contact-sheet clean

quickstart: .venv/examples
	$(BIN)/python examples/quickstart.py

# Go-to-definition and completion in editors (jedi, pyright); rerun after adding a module.
develop: .venv/test
	$(BIN)/python setup.py --quiet editors

test: lint
	$(BIN)/python -m pytest

# Installs Torch, several gigabytes in its default build.
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

# Beside PyHessian, if that is installed; separate because PyHessian needs Torch. In one thread:
# on a busy machine those of Torch would wait for each other.
benchmark-curvature: export OMP_NUM_THREADS = 1
benchmark-curvature: export TF_NUM_INTRAOP_THREADS = 1
benchmark-curvature: export TF_NUM_INTEROP_THREADS = 1
benchmark-curvature: .venv/examples
	PYTHONPATH=examples:benchmarks $(BIN)/python benchmarks/curvature.py

# About ten minutes; separate because it needs Dask, which the examples do not.
benchmark-workers: .venv/test
	PYTHONPATH=examples:benchmarks $(BIN)/python benchmarks/workers.py

# Redraws the baseline images of tests/test_plotting.py: look at them before you commit.
baselines: .venv/test
	$(BIN)/python -m pytest -o addopts= --mpl-default-style=default --mpl-generate-path=tests/baseline \
		tests/test_plotting.py -k look

# Every plot under settings that break figures, for a look after changes.
contact-sheet: .venv/examples
	$(BIN)/python examples/contact_sheet.py

# A stamp per set of extras, so each is installed once, and again when setup.py changes.
.venv/%: setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	touch $@

clean:
	rm -rf .venv build *.egg-info
