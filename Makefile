# Everything runs in .venv, which these targets make; a stamp lets the second run start at once.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
TORCH  := $(shell sed -n '1s/^torch==//p' constraints.txt)
PIP    := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
TORCH_STAYED := import importlib.metadata as m; v = m.version("torch").split("+")[0]; \
	assert v == "$(TORCH)", f"torch {v} was installed, constraints.txt says $(TORCH)"

.PHONY: demo test check optional conformance bench docs clean

demo: $(VENV)/.stamp-core
	$(BIN)/spikequant demo --out runs/demo

test: check
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

check: $(VENV)/.stamp-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The libraries that some tests need; `make test` runs without them, and those tests then skip and say why.
optional: $(VENV)/.stamp-optional

conformance: $(VENV)/.stamp-optional
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m conformance

bench: $(VENV)/.stamp-optional
	$(BIN)/python benchmarks/run_all.py

docs: $(VENV)/.stamp-docs
	$(BIN)/mkdocs build --strict

clean:
	rm -rf runs build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# torch first and alone: what follows must fit it, not the other way round.
$(VENV)/.stamp-core: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) torch==$(TORCH)
	$(PIP) -e '.[report]'
	$(BIN)/python -c '$(TORCH_STAYED)'
	touch $@

$(VENV)/.stamp-test: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) torch==$(TORCH)
	$(PIP) -e '.[test]'
	$(BIN)/python -c '$(TORCH_STAYED)'
	touch $(VENV)/.stamp-core $@

$(VENV)/.stamp-optional: $(VENV)/.stamp-test requirements/optional.txt requirements/optional-no-deps.txt
	$(PIP) -r requirements/optional.txt
	$(PIP) --no-deps -r requirements/optional-no-deps.txt
	$(BIN)/python -c '$(TORCH_STAYED)'
	touch $@

$(VENV)/.stamp-docs: $(VENV)/.stamp-test
	$(PIP) -e '.[docs]'
	touch $@
