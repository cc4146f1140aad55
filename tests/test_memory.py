"""What a model needs, said before it is loaded, and what a study takes, said before it is run."""

from __future__ import annotations

from dataclasses import replace

import pytest
import transformers as hf

from culnig_tl.engine import memory
from culnig_tl.engine.memory import GIB, check_memory, gib, parameter_count
from culnig_tl.errors import ModelError
from culnig_tl.run.forecast import duration, forecast
from culnig_tl.run.pieces import Questions
from culnig_tl.study.config import TOY_CONFIG, StudyConfig

from . import families


@pytest.mark.parametrize("family", ["llama", "qwen3", "phi3", "gemma3", "gpt2"])
def test_weights_are_counted_from_the_configuration(family, checkpoints, tmp_path):
    folder = checkpoints(family)
    plain = families.build(family)
    expected = sum(
        p.numel() for n, p in plain.named_parameters() if "vision" not in n and "multi_modal" not in n
    )
    assert parameter_count(str(folder)) == expected
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    assert parameter_count(str(tmp_path)) == expected, "no weight is read"


def test_a_model_larger_than_memory_is_refused_before_it_is_loaded(tmp_path, monkeypatch):
    """Gemma 3 27B's shape, with 24 GiB free."""
    shape = {
        "hidden_size": 5376,
        "intermediate_size": 21504,
        "num_hidden_layers": 62,
        "num_attention_heads": 32,
        "num_key_value_heads": 16,
    }
    hf.Gemma3TextConfig(vocab_size=262208, head_dim=128, **shape).save_pretrained(tmp_path)
    monkeypatch.setattr(memory, "free_here", lambda: 24 * GIB)
    with pytest.raises(
        ModelError,
        match=r"needs about 50 GiB of memory in bfloat16, 24 GiB are free: --device-map auto spreads it",
    ):
        check_memory(str(tmp_path), device="cpu", dtype="bfloat16")
    with pytest.raises(
        ModelError,
        match=r"needs about 101 GiB of memory in float32, 24 GiB are free: --dtype bfloat16 halves it",
    ):
        check_memory(str(tmp_path), device="cpu", dtype="float32")
    monkeypatch.setattr(memory, "free_here", lambda: 64 * GIB)
    check_memory(str(tmp_path), device="cpu", dtype="bfloat16")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ModelError, match="32 GiB are free for each of 2 processes"):
        check_memory(str(tmp_path), device="cpu", dtype="bfloat16")


def test_what_loading_will_refuse_is_left_to_it(tmp_path):
    check_memory(str(tmp_path / "nowhere"))
    (tmp_path / "config.json").write_text('{"model_type": "unheard of"}')
    check_memory(str(tmp_path))


def test_free_memory_is_what_a_container_leaves(tmp_path, monkeypatch):
    for name, text in (
        ("max", f"{2 * GIB}"),
        ("current", f"{GIB}"),
        ("stat", f"anon 5\ninactive_file {GIB // 2}\n"),
    ):
        (tmp_path / f"memory.{name}").write_text(text)
    monkeypatch.setattr(memory, "_LIMITS", ((str(tmp_path), "memory.max", "memory.current"),))
    assert memory.free_here() == GIB + GIB // 2
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.free_here() > 0


def test_words_for_sizes_and_times():
    assert [gib(size) for size in (GIB // 2, 9.9 * GIB, 54.3 * GIB)] == ["0.5 GiB", "9.9 GiB", "54 GiB"]
    assert [duration(s) for s in (7, 120, 3 * 3600, 5 * 86400)] == ["7 s", "2 min", "3.0 h", "5.0 days"]


def test_a_forecast_counts_every_token_and_times_a_few_batches(loaded):
    config = replace(
        TOY_CONFIG, limit=24, random_sets=3, batch_size=4, tasks=("miniculture", "minicommonsense")
    )
    questions = Questions.load(config)
    model = loaded("llama")
    found = forecast(config, model, questions)
    scored, asked = (found.table[found.table["pass"] == kind] for kind in ("score", "ask"))
    assert list(scored["task"]) == [
        "miniculture",
        "miniculture:control",
        "minireading",
        "minicommonsense",
    ] and set(scored["times"]) == {1}
    random = found.table[found.table["pass"] == "ask random sets"]
    assert set(asked["times"]) == {3} and set(random["times"]) == {2 * 3}
    assert set(found.table["questions"]) == {24} and found.passes == 9
    task = questions.asked[0]
    bos = sum(
        1 + len(model.tokenizer.tokenize(f"{q.prompt}\n{q.answer_prefix}" if q.answer_prefix else q.prompt))
        for q in task
    )
    assert asked["tokens"].iloc[0] == bos
    assert found.scoring > 0 and found.asking > 0
    assert found.seconds == pytest.approx(
        scored["tokens"].sum() / found.scoring + asked["tokens"].sum() * 9 / found.asking
    )
    assert found.weights == sum(p.numel() * 4 for p in families.build("llama").parameters())
    assert found.sums == 4 * 3 * (72 + 48 + 16 + 16) * len(questions.scored["neuron"].countries)
    assert "of weights" in str(found) and found.disk > 4 * found.sums


def test_a_forecast_says_what_random_sets_would_cost_on_all_questions(loaded):
    config = StudyConfig(
        tasks=("miniculture",), reading="minireading", rival=None, random_sets=2, random_questions=100
    )
    found = forecast(config, loaded("llama"), Questions.load(config))
    asked, random = (found.table[found.table["pass"] == kind] for kind in ("ask", "ask random sets"))
    assert asked["questions"].item() == 1452 and 100 <= random["questions"].item() < 200
    assert found.passes == pytest.approx(2 + 4 * random["questions"].item() / 1452)
    assert found.with_all().passes == 6 and "--random-questions all 6.0" in str(found)
    assert found.with_all().seconds > found.seconds == pytest.approx(found.parts()["seconds"].sum())
    assert not found.expected and replace(found, expected=True).__str__().count("an expectation") == 1
