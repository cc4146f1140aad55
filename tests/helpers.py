"""What several test files compare with."""

from __future__ import annotations

import importlib.util
import io
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
import transformers as hf

from culnig_tl import NeuronScores, score_neurons
from culnig_tl.cli import run_command
from culnig_tl.data.neurons import Site


def plain_model(folder, dtype=torch.float32):
    """The checkpoint as plain transformers loads it, multimodal ones whole."""
    config = hf.AutoConfig.from_pretrained(folder)
    kind = hf.Gemma3ForConditionalGeneration if config.model_type == "gemma3" else hf.AutoModelForCausalLM
    return kind.from_pretrained(folder, dtype=dtype).eval()


def rows(tokenizer, task):
    """(tokens, answer token, country) by the letter: the answer is the token that the prompt, a space and
    the label have more."""
    made = []
    for question in task:
        tokens = tokenizer(question.prompt)["input_ids"]
        with_label = tokenizer(f"{question.prompt} {question.answer}")["input_ids"]
        assert with_label[:-1] == tokens
        made.append((tokens, with_label[-1], question.country))
    return made


def largest_error(scores, expected):
    """The largest error over (country, site, layer), each against that vector's largest value."""
    errors = []
    for (country, site, layer), vector in expected.items():
        mine = scores.of(country)[Site(site)][layer]
        errors.append(np.abs(mine - np.array(vector)).max() / np.abs(vector).max())
    return max(errors)


def score(model, task, **options):
    return score_neurons(model, task, progress=False, **options)


def difference(a: NeuronScores, b: NeuronScores) -> float:
    """The largest difference over (site, layer), each against its largest score."""
    assert a.countries == b.countries and a.sites == b.sites
    rows = [
        (np.abs(x - y).max(axis=(0, 2)) / np.abs(y).max(axis=(0, 2))).max()
        for x, y in ((a.arrays[s], b.arrays[s]) for s in a.sites)
    ]
    return float(max(rows))


def invoked(*arguments: object) -> str:
    """What a command of `culnig-tl` prints; an error of it is raised here."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        run_command([str(argument) for argument in arguments])
    return printed.getvalue()


def docs_module(name: str) -> ModuleType:
    """A script of docs/, as a module."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / "docs" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
