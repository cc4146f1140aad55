"""A training stopped at every change that it makes to its folder: from each state that a kill can leave, it
is resumed and replaced to the same bytes. Trainer itself, whose states are tested elsewhere, is left out."""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from culnig_tl import io
from culnig_tl.errors import FineTuningError
from culnig_tl.finetuning import FineTuned, TrainingConfig, finetune, tuning
from culnig_tl.finetuning.folder import RECORD, RUN, WORK
from culnig_tl.finetuning.modules import choose_modules, list_modules
from culnig_tl.finetuning.training import COMPLETE, Trained

from . import families
from .stops import states

CPU = TrainingConfig(device="cpu")


@pytest.fixture
def train(checkpoints, monkeypatch):
    """`train(folder, **how)` without the hours: one state is saved, every trained weight grows by one."""
    source, task = checkpoints("llama"), families.questions(4)
    modules = choose_modules(list_modules(source), ("mlp.1",))
    load, tokenizer = cache(tuning.load_plain), tuning.load_tokenizer(str(source))

    def run(net, prompts, tokenizer, config, *, folder, **how):
        io.write(folder / "checkpoint-1" / "trained", b"state")
        io.write(folder / "checkpoint-1" / COMPLETE, b"")
        for parameter in net.parameters():
            if parameter.requires_grad:
                parameter.data += 1
        return Trained(1, [(1, 0.5)], 1, 8, 1, 0.0)

    monkeypatch.setattr(tuning, "load_plain", lambda *given: copy.deepcopy(load(*given)))
    monkeypatch.setattr(tuning, "load_tokenizer", lambda name: tokenizer)
    monkeypatch.setattr(tuning, "run_training", run)

    def train(folder: Path, config: TrainingConfig = CPU, **how) -> FineTuned:
        return finetune(source, task, modules, output_dir=folder, config=config, progress=False, **how)

    return train


def content_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize(("begin", "least"), [("new", 20), ("overwrite", 25), ("resume", 15)])
def test_a_training_stopped_at_any_change_is_resumed_or_replaced(begin, least, train, tmp_path, monkeypatch):
    whole = content_of(train(tmp_path / "whole").folder)
    folder = tmp_path / "tuned"
    folder.mkdir()
    if begin == "overwrite":
        train(folder, replace(CPU, seed=7))
    if begin == "resume":
        train(folder)
        (folder / "config.json").unlink()
    how = {} if begin == "new" else {begin: True}
    left = states(folder, lambda: train(folder, **how), tmp_path / "left", monkeypatch)
    assert content_of(folder) == whole and len(left) >= least
    for state in left:
        for way in ("overwrite", "resume"):
            again = tmp_path / "again"
            shutil.copytree(state, again)
            try:
                train(again, **{way: True})
            except FineTuningError as error:  # until the old training has given way to the new one
                assert (way, begin) == ("resume", "overwrite") and "with config =" in str(error)
                assert (state / RECORD).exists() and not (state / WORK / RUN).exists()
            else:
                assert content_of(again) == whole, (state.name, way)
            shutil.rmtree(again)
