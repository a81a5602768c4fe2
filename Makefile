# Everything runs in .venv, which these targets make; a stamp lets the second run start at once.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
TORCH  := $(shell sed -n '1s/^torch==//p' constraints.txt)
PIP    := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
TORCH_STAYED := import importlib.metadata as m; v = m.version("torch").split("+")[0]; \
	assert v == "$(TORCH)", f"torch {v} was installed, constraints.txt says $(TORCH)"

.PHONY: demo test check conformance bench clean

demo: $(VENV)/.stamp-core
	$(BIN)/spikequant demo --out runs/demo

test: check
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

check: $(VENV)/.stamp-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

conformance: $(VENV)/.stamp-test
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m conformance

bench: $(VENV)/.stamp-test
	$(BIN)/python benchmarks/run_all.py

clean:
	rm -rf runs build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# torch first and alone: what follows must fit it, not the other way round.
$(VENV)/.stamp-core: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) torch==$(TORCH)
	$(PIP) -e .
	$(BIN)/python -c '$(TORCH_STAYED)'
	touch $@

$(VENV)/.stamp-test: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) torch==$(TORCH)
	$(PIP) -e '.[test]'
	$(BIN)/python -c '$(TORCH_STAYED)'
	touch $(VENV)/.stamp-core $@
