# make test   everything that must hold: notebooks and library in step, the chapters' own tests, then pytest
# make demo   photos of scikit-image, segmented by the offline teachers; then the whole method on the painted mini world, with baseline and ceiling
# make lessons   run the lessons whose committed outputs are not those of their code
# make docs   the site in build/site, from the notebooks as they are committed; needs no torch and makes .venv-docs, which is small
# make slides   a deck for a lesson of 90 minutes in build/slides, from the lessons as they are committed; npm brings reveal.js
# make browser-test   walks the site for dead links, opens it and the slides in Chromium, and works the widgets in JupyterLab, where node, npm and chromium are installed
# Each makes its environment on first use. Nothing but pip, and npm in slides and browser-test, needs the network.
# `make PYTHON=python3.12 test` picks another Python.
PYTHON ?= python3
VENV   := $(CURDIR)/.venv
STAMP  := $(VENV)/.namedmask-installed
DOCS   := $(CURDIR)/.venv-docs
export PATH := $(VENV)/bin:$(PATH)
export OMP_NUM_THREADS ?= 1
export GOMP_SPINCOUNT ?= 20000
export MPLBACKEND ?= agg
export TOKENIZERS_PARALLELISM := false
export HF_HUB_OFFLINE := 1
.PHONY: test demo check export readme lessons docs slides browser-test clean
.DEFAULT_GOAL := test

CHECK_PYTHON := import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"namedmask needs Python 3.11 or later, and $(PYTHON) is {v[0]}.{v[1]}: make PYTHON=python3.11 $(MAKECMDGOALS)")

$(STAMP): settings.ini setup.py pyproject.toml .ci/constraints.txt
	@$(PYTHON) -c '$(CHECK_PYTHON)'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c .ci/constraints.txt -e '.[offline,dev]'
	@touch $@

test: $(STAMP)
	python .ci/insync.py
	python .ci/notebooks.py
	python -m pytest -n 2 --dist worksteal tests

demo: $(STAMP)
	OMP_NUM_THREADS=2 python .ci/demo.py

check: $(STAMP)
	python .ci/insync.py

export: $(STAMP)
	nbdev-export
	nbdev-clean
	python .ci/readme.py

lessons: $(STAMP)
	python .ci/lessons.py

readme: $(STAMP)
	python .ci/readme.py

$(DOCS)/.installed: settings.ini .ci/constraints.txt .ci/site/needs.py
	@$(PYTHON) -c '$(CHECK_PYTHON)'
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet --disable-pip-version-check -c .ci/constraints.txt $$($(PYTHON) .ci/site/needs.py)
	@touch $@

docs: $(DOCS)/.installed
	$(DOCS)/bin/python .ci/site/build.py

slides: $(DOCS)/.installed
	$(DOCS)/bin/python .ci/site/slides.py

browser-test: docs $(STAMP)
	$(DOCS)/bin/python .ci/site/check.py
	$(DOCS)/bin/python .ci/site/browse.py
	$(DOCS)/bin/python .ci/site/slides.py --open
	python -m pytest -p no:cacheprovider -rs tests/browser/lab.py tests/browser/lab_runs.py

clean:
	rm -rf runs/demo build dist .pytest_cache
