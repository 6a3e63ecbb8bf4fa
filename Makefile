# `make demo` and `make test` set up by themselves; `make setup` alone makes .venv.
VENV := .venv
PYTHON := $(VENV)/bin/python
UV := $(VENV)/bin/uv
PARALLEL := -n 2 --dist loadfile --no-loadscope-reorder
# Bytecode is kept of what is imported: compiling all that is installed takes longer than the rest of the set-up.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo test test-all opinfo fuzz lint bench clean

setup: $(VENV)/ready

$(VENV)/ready: pyproject.toml constraints.txt
	python3.12 -m venv --clear $(VENV) || python3 -m venv --clear $(VENV)
	$(PYTHON) -m pip install --quiet uv
	VIRTUAL_ENV=$(VENV) $(UV) pip install --quiet -c constraints.txt -e '.[test]'
	touch $@

demo: setup
	$(PYTHON) benchmarks/semantic_search.py

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

# One thread a process: two of them share two cores.
test test-all: export OMP_NUM_THREADS ?= 1

test: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy & $(PYTHON) -m pytest $(PARALLEL) -m "not slow" && wait $$!

test-all: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy & $(PYTHON) -m pytest $(PARALLEL) && wait $$!

opinfo: setup
	$(PYTHON) tests/opinfo

fuzz: setup
	$(PYTHON) tests/fuzz --graphs 2000

bench: setup
	$(PYTHON) benchmarks/run.py

clean:
	rm -rf $(VENV) build dist *.egg-info
