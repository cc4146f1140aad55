# `make demo` and `make test` set up all they need in .venv and run; nothing has to be installed before but Python and make.
PYTHON ?= python3
VENV   ?= .venv
RUN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

export TOKENIZERS_PARALLELISM = false

.PHONY: demo test test-all lint wheel clean

demo: $(STAMP)  ## the whole study on the embedded model, into runs/toy
	$(RUN)/culnig-tl run --model toy --output-dir runs/toy --overwrite

test: $(STAMP)  ## the ordinary tests
	$(RUN)/python -m pytest -q

test-all: $(STAMP) lint  ## lint, and every test but the timed ones
	$(RUN)/python -m pytest -q -m "not perf"

lint: $(STAMP)
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/pyright --pythonpath $(RUN)/python

wheel: $(STAMP)
	$(RUN)/python -m build --wheel

clean:
	rm -rf $(VENV) build dist runs *.egg-info

# torch first: where a machine keeps a CPU build of the pinned version, the rest is then resolved around it.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet -c constraints.txt torch
	$(RUN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $(STAMP)
