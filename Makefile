# `make quickstart` and `make test` need only Python 3.11, git and a package index.
# The system's where there is one: unlike many others, it is built with all optimizations, and runs
# Python code in two thirds of the time.
PYTHON ?= $(shell /usr/bin/python3.11 -c "import ensurepip" 2>/dev/null && echo /usr/bin/)python3.11
BIN = .venv/bin
export TF_CPP_MIN_LOG_LEVEL = 3
# Dozens of processes of the tests import the library, which takes two seconds more uncompiled.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: quickstart develop test pytest torch-cpu chromium test-versions test-lowest docs gallery lint format benchmark benchmark-accuracy benchmark-curvature benchmark-workers baselines contact-sheet clean

quickstart: .venv/examples
	$(BIN)/python examples/quickstart.py

# Go-to-definition and completion in editors (jedi, pyright); rerun after adding a module.
develop: .venv/test
	$(BIN)/python setup.py --quiet editors

test: .venv/test
	$(MAKE) --jobs --no-print-directory lint docs pytest

pytest: .venv/test
	$(BIN)/python -m pytest

# For the tests on Torch, which are left out without it. PyPI has only the build for GPUs, of
# gigabytes; this one is in PyTorch's own index: set PIP_EXTRA_INDEX_URL as `.github` does.
torch-cpu: .venv/test
	$(BIN)/python -m pip install --quiet torch==2.13.0+cpu

# For the tests of web pages, which are left out without a browser: Debian's, or else Playwright's.
chromium: .venv/test
	command -v chromium || apt-get install --quiet --yes chromium || \
		PLAYWRIGHT_BROWSERS_PATH=.venv/browsers $(BIN)/playwright install chromium

# Every supported Python, and the lowest versions in setup.py. Takes an hour; uv finds the
# interpreters, or downloads them.
test-versions: test-python-3.11 test-python-3.12 test-python-3.13 test-lowest

test-python-%: .venv/test
	$(BIN)/uv venv --quiet --seed --clear --python $* build/python-$*
	$(BIN)/uv pip install --quiet --python build/python-$* --editable '.[test]'
	build/python-$*/bin/python -m pytest

# Reference images are those of the latest Matplotlib, so they are not compared. The warning that
# is ignored is about Keras and old versions of NumPy.
test-lowest: .venv/test
	$(BIN)/uv venv --quiet --seed --clear --python 3.11 build/lowest
	$(BIN)/uv pip install --quiet --python build/lowest --resolution lowest-direct \
		--editable '.[dask,examples,html,jax,pandas,paraview,xarray]' 'pytest>=9' 'pytest-mpl>=0.19' 'pytest-xdist>=3.8'
	build/lowest/bin/python -m pytest -o addopts= -n 3 -W 'ignore:In the future `np' \
		$(addprefix --ignore=tests/,test_docs.py test_installation.py test_types.py)

# The site, in build/site. A link that leads nowhere or a name that is not found is an error.
docs: develop
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Redraws the pictures of the gallery: look at them before you commit.
gallery: .venv/test
	cd docs/gallery && for script in [!t]*.py three_models.py training.py; do \
		PYTHONPATH=../.. MPLBACKEND=Agg ../../$(BIN)/python $$script || exit 1; done

lint: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

benchmark: .venv/examples
	PYTHONPATH=examples:benchmarks $(BIN)/python benchmarks/memory.py
	PYTHONPATH=examples:benchmarks $(BIN)/python benchmarks/speed.py
	PYTHONPATH=examples:benchmarks $(BIN)/python benchmarks/backends.py

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

# What `accuracy=` costs, on all of Fashion-MNIST: Debian's package dataset-fashion-mnist, or a download.
benchmark-accuracy: .venv/examples
	PYTHONPATH=examples:benchmarks $(BIN)/python benchmarks/accuracy.py

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
