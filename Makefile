# Everything here works from a fresh clone with Python 3.11 and make: each target sets up what it needs in .venv first.
# `make` alone lists the targets.

VENV   ?= .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3)
JOBS   ?= $(shell getconf _NPROCESSORS_ONLN)
SENTENCE = I believe that the EU is trustworthy.

bin := $(VENV)/bin
# Pinned versions, the project's own package without a build environment of its own, quiet unless something fails.
install := $(bin)/python -m pip install -qq --disable-pip-version-check --constraint requirements/constraints.txt
run_stamp := $(VENV)/.installed-run
dev_stamp := $(VENV)/.installed-dev
bench_stamp := $(VENV)/.installed-bench
pins := pyproject.toml requirements/constraints.txt requirements/no-deps.txt

# A PYTHONPATH from outside would put another copy of cutaway before the one that is tested.
unexport PYTHONPATH
.DEFAULT_GOAL := help
.PHONY: help demo test check bench notebooks page clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(run_stamp) ## explain a sentence with the built-in model: text here, a picture and a page in demo-out/
	@mkdir -p demo-out
	HF_HUB_OFFLINE=1 $(bin)/cutaway explain "$(SENTENCE)" -o demo-out/explain.png -o demo-out/explain.html
	@echo "The picture: $(CURDIR)/demo-out/explain.png"
	@echo "The page:    $(CURDIR)/demo-out/explain.html (open it in a browser; it needs nothing else)"

test: $(dev_stamp) ## run the tests (offline, one process per core)
	OMP_NUM_THREADS=1 $(bin)/python -m pytest -n $(JOBS) $(ARGS)

check: $(dev_stamp) ## lint, formatting, types, direction of imports, then the tests
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy --strict cutaway
	$(bin)/lint-imports
	OMP_NUM_THREADS=1 $(bin)/python -m pytest -n $(JOBS) $(ARGS)

bench: $(bench_stamp) ## measure cutaway and its peers side by side; figures also go to benchmarks/results/
	HF_HUB_OFFLINE=1 $(bin)/python benchmarks/run.py $(ARGS)
	$(bin)/python benchmarks/report.py

notebooks: $(dev_stamp) ## run the notebooks in docs/notebooks and store their outputs
	HF_HUB_OFFLINE=1 PYTHONPATH=. $(bin)/python tests/notebooks.py $(ARGS)

page: ## build the page's script and style from page/ (the only thing here that needs Node)
	cd page && npm ci && npm run check && npm run build

clean: ## remove what the other targets made
	rm -rf $(VENV) demo-out build page/node_modules .pytest_cache .mypy_cache .ruff_cache .import_linter_cache *.egg-info

$(bin)/python:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo "cutaway needs Python 3.11 or newer; found: $(PYTHON). Say: make PYTHON=/path/to/python3.11"; exit 1; }
	"$(PYTHON)" -m venv $(VENV)

$(run_stamp): $(pins) | $(bin)/python
	@echo "Setting up $(VENV) (once; a few minutes, most of it for PyTorch)"
	$(install) "setuptools>=77"
	$(install) --no-build-isolation --editable ".[plots]"
	@touch $@

$(dev_stamp): $(pins) | $(bin)/python
	@echo "Setting up $(VENV) with the test tools (once; a few minutes)"
	$(install) "setuptools>=77"
	$(install) --no-build-isolation --editable ".[dev]"
	$(install) --no-deps --requirement requirements/no-deps.txt
	@touch $@ $(run_stamp)

$(bench_stamp): $(dev_stamp)
	@echo "Setting up $(VENV) with the measured engines (once; a few minutes)"
	$(install) --no-build-isolation --editable ".[bench]"
	@touch $@
