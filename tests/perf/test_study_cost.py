"""What a study costs: passes over questions, several settings in one batch, and a dry run. Prints figures.

    python -m pytest -m perf -s tests/perf/test_study_cost.py

SmolLM2's figures need its GGUF file (CULNIG_SMOLLM2) and a mirror of the Hub's data sets (CULNIG_DATA_DIR).
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch

from culnig_tl import describe, load_model
from culnig_tl.data.neurons import NeuronSet, Site
from culnig_tl.engine.models import hook_name, last_logits, tokenizer_of
from culnig_tl.engine.prompts import Asked, pad, plan_batches
from culnig_tl.method.ablation import ablation_hooks
from culnig_tl.run.forecast import forecast_study
from culnig_tl.run.pieces import Questions, settings_of
from culnig_tl.study.config import StudyConfig
from culnig_tl.study.sampling import PASSES, error_of, parts_needed

from .. import families
from . import shapes

pytestmark = pytest.mark.perf
CPU = torch.device("cpu")
MODEL, DATA = os.environ.get("CULNIG_SMOLLM2"), os.environ.get("CULNIG_DATA_DIR")
needs_data = pytest.mark.skipif(not DATA, reason="CULNIG_DATA_DIR names no mirror of the Hub's data sets")
needs_model = pytest.mark.skipif(not (MODEL and DATA), reason="CULNIG_SMOLLM2 names no GGUF file")


@needs_data
def test_passes_over_the_questions_of_the_default_study():
    """By the share of answers that one random set changes, were rows independent."""
    config = StudyConfig(data_dir=DATA)
    tasks = Questions.load(config).asked
    whole, settings = sum(map(len, tasks)), settings_of(config, rival=True)
    print(f"\n{whole:,} questions, {len(settings)} settings: {len(settings)} passes with all questions")
    for changed in (0.01, 0.02, 0.03, 0.05, 0.1, 0.16):
        spread = 100 * changed**0.5
        parts = parts_needed(tasks, [spread] * len(tasks), sets=2 * config.random_sets)
        passes = 3 + 2 * config.random_sets * sum(map(len, parts)) / whole
        errors = [error_of(spread, len(part), len(task)) for part, task in zip(parts, tasks)]
        print(
            f"{changed:.0%} of the answers change: {[len(part) for part in parts]} questions of random sets,"
            f" {passes:.1f} passes; standard error of one set's drop {max(errors):.1f} points"
        )
        assert passes <= 3 + PASSES


@needs_model
@pytest.mark.parametrize("limit", [None, 1000])
def test_a_dry_run(limit):
    """Of SmolLM2 135M: seconds from the start, and what random sets are expected to cost."""
    began, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    found = forecast_study(StudyConfig(model=str(MODEL), data_dir=DATA, limit=limit, device="cpu"))
    now = resource.getrusage(resource.RUSAGE_SELF)
    cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    print(f"\n--limit {limit}: {time.perf_counter() - began:.1f} s, {cpu:.1f} s of processor\n{found}")
    print(f"wall time by forecast, all and now: {found.with_all().seconds / found.seconds:.2f} x")


@pytest.mark.parametrize("tokens", [32, 96])
def test_several_settings_in_one_batch_against_one_after_the_other(tmp_path, tokens):
    """The same questions in eight settings: eight passes, or one pass with a mask for each row; batches of as
    many rows. Seconds of processor, so that a busy machine does not decide; the two take turns."""
    shapes.build("llama", "smaller").save_pretrained(tmp_path)
    families.tokenizer().save_pretrained(tmp_path)
    model = load_model(tmp_path, device="cpu", dtype="float32")
    prompts = Asked.of(model, shapes.questions(16, tokens)).prompts
    sets = [_some(model, seed) for seed in range(8)]
    tokenizer, lengths = tokenizer_of(model), [len(p.tokens) for p in prompts]
    hooks = [ablation_hooks(model, neurons, in_place=True) for neurons in sets]

    def apart(size: int) -> list[torch.Tensor]:
        """Each setting by itself."""
        found = []
        for of_set in hooks:
            with model.hooks(fwd_hooks=of_set):
                for index in plan_batches(lengths, size):
                    found.append(last_logits(model, *pad([prompts[i] for i in index], tokenizer, CPU)))
        return found

    def together(size: int) -> list[torch.Tensor]:
        """All settings of `size` / 8 questions in a batch, or of one."""
        found = []
        for index in plan_batches(lengths, max(1, size // len(sets))):
            rows = [prompts[i] for i in index]
            with model.hooks(fwd_hooks=_masks(model, sets, len(rows))):
                found.append(last_logits(model, *pad(rows * len(sets), tokenizer, CPU)))
        return found

    print()
    with torch.no_grad():
        one, other = torch.cat(apart(16)), torch.cat(together(128))
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
        for size in (1, 8, 16):
            turns = [(_seconds(apart, size), _seconds(together, size)) for _ in range(3)]
            times, ratio = np.median(turns, axis=0), float(np.median([b / a for a, b in turns]))
            print(
                f"{tokens} tokens, {size} rows in a batch ({max(size, 8)} together): {times[0]:.2f} s one"
                f" setting after the other, {times[1]:.2f} s together, {ratio:.2f} x"
            )


def _some(model, seed: int) -> NeuronSet:
    """One in a hundred of the gate neurons."""
    rng, info = np.random.default_rng(seed), describe(model)
    width = info.widths[Site.MLP_GATE]
    drawn = [rng.choice(width, width // 100, replace=False) for _ in range(info.layers)]
    return NeuronSet.from_indices(
        (Site.MLP_GATE, layer, int(i)) for layer, some in enumerate(drawn) for i in some
    )


def _masks(model, sets: list[NeuronSet], rows: int) -> list[tuple[str, Callable]]:
    """Forward hooks that multiply each row's outputs by its own set's mask; rows are set by set."""
    hooks = []
    for layer in range(describe(model).layers):
        mask = torch.ones(len(sets), 1, describe(model).widths[Site.MLP_GATE])
        for number, neurons in enumerate(sets):
            mask[number, 0, neurons.indices[Site.MLP_GATE, layer]] = 0
        mask = mask.repeat_interleave(rows, 0)
        hooks.append((hook_name(model, Site.MLP_GATE, layer), lambda out, hook, mask=mask: out * mask))
    return hooks


def _seconds(run: Callable[[int], object], size: int) -> float:
    """Of processor."""
    began = time.process_time()
    run(size)
    return time.process_time() - began
