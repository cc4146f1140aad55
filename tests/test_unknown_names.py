"""Unknown names: which there are, and what was meant; a model's name before anything else."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest

from culnig_tl import load_task
from culnig_tl.cli import COMMANDS, EXAMPLES, main, overview
from culnig_tl.data.neurons import Site
from culnig_tl.data.scores import NeuronScores
from culnig_tl.engine.loading import check_name, load_tokenizer
from culnig_tl.errors import CulnigError, ModelError, TaskError, UnknownNameError
from culnig_tl.figures import layer_heatmap
from culnig_tl.names import Named, nearest, which
from culnig_tl.run.pieces import check_model, check_words
from culnig_tl.study.config import TOY_CONFIG, StudyConfig
from culnig_tl.tasks import list_tasks
from culnig_tl.tasks.registry import TASKS
from culnig_tl.toy import FOLDER

from .builders import CULTURE
from .helpers import invoked
from .studies import made_study


def test_what_was_meant_and_which_there_are():
    assert which("Span", ["Mexico", "Spain"], "countries are") == (
        ", did you mean 'Spain'? Countries are Mexico, Spain"
    )
    assert which("zzz", ["a"]) == ": there are a" and which("x", []) == ": there are none"
    assert nearest("SPAIN", ["Spain"]) == "Spain" and nearest("zzz", ["Spain"]) is None


def test_a_missing_part_is_the_packages_error_and_a_key_error():
    parts = Named("set", {"general": 1}.items())
    for same in (parts, copy.deepcopy(parts), pickle.loads(pickle.dumps(parts))):
        with pytest.raises(KeyError) as caught:
            same["genral"]
        assert isinstance(caught.value, CulnigError)
        assert str(caught.value) == "no set 'genral', did you mean 'general'? There are general"
        assert same.get("genral") is None and "genral" not in same


@pytest.mark.parametrize("part", ["scores", "neurons", "results"])
def test_a_study_says_which_parts_it_has(part):
    with pytest.raises(UnknownNameError, match="did you mean '.*'\\? There are ") as caught:
        getattr(made_study(own={}), part)["cultur-general" if part != "scores" else "neurn"]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda: Site.parse("mlp.gat"), "did you mean 'mlp.gate'\\? Sites are mlp.gate"),
        (lambda: CULTURE.total("attn.qq"), "did you mean 'attn.q'"),
        (lambda: CULTURE.total("mlp.up"), "no scores of mlp.up in .*Sites are mlp.gate, attn.q"),
        (lambda: CULTURE.to_dataframe("mlp.post"), "no scores of mlp.post"),
        (lambda: CULTURE.of(CULTURE.countries[0][:-1]), f"did you mean '{CULTURE.countries[0]}'"),
        (lambda: layer_heatmap(CULTURE, country=CULTURE.countries[0] + "x"), "did you mean"),
        (lambda: made_study(own={}).neurons["culture-general"].counts("layr"), "did you mean 'layer'"),
        (lambda: made_study(own={}).results["unchanged"].accuracy("countri"), "did you mean 'country'"),
        (lambda: made_study(own={}).drop("nothing-like-it"), "this study asked"),
        (lambda: load_task("miniculture", split="nuron"), "did you mean 'neuron'"),
    ],
)
def test_python_says_what_was_meant(ask, says):
    with pytest.raises(CulnigError, match=says):
        ask()


def test_the_models_name_is_checked_before_anything_is_fetched(monkeypatch, capsys):
    from culnig_tl.engine import loading
    from culnig_tl.run import pieces

    def fetched(*_, **__):
        raise AssertionError("fetched")

    monkeypatch.setattr(loading, "cache_where_offline", fetched)
    monkeypatch.setattr(pieces, "load_tasks", fetched)
    for words in (
        ["run", "--tasks", "blend"],
        ["run", "--dry-run"],
        ["score", "-o", "x.safetensors"],
        ["evaluate"],
        ["finetune"],
    ):
        assert main([*words, "--model", "tooy"]) == 2
        assert capsys.readouterr().err == "Error: no model 'tooy': did you mean toy?\n"


def test_a_misspelt_toy_is_answered_before_libraries_are_imported():
    code = """
import sys
from culnig_tl.cli import main
assert main(["run", "--model", "tooy"]) == 2
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


def test_a_model_of_the_paper_is_recognised_without_a_network(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="did you mean Qwen/Qwen3-14B"):
        check_name("Qwen/Qwen3-14")
    check_name("toy")


def test_without_a_network_data_sets_are_not_asked_for_again_and_again(monkeypatch):
    """The Hub is taken for unreachable: the error comes at once, in one line, and nothing sleeps."""
    import time

    from culnig_tl import hub

    monkeypatch.setattr(hub, "_hub_answers", lambda now: False)
    monkeypatch.delenv("CULNIG_DATA_DIR", raising=False)
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail(f"slept {seconds} s"))
    with pytest.raises(TaskError, match="cannot read .* from the Hub") as caught:
        load_task("normad")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("field", ["tasks", "reading", "rival"])
def test_the_embedded_model_is_not_asked_words_that_it_does_not_know(field):
    wrong = {"tasks": ("miniculture", "blend"), "reading": "countryrc", "rival": "commonsenseqa"}[field]
    with pytest.raises(TaskError, match="does not know the words of '(blend|countryrc|commonsenseqa)'"):
        check_model(StudyConfig(**{**vars(TOY_CONFIG), field: wrong}))


def test_it_knows_those_of_its_own_tasks():
    tokenizer = load_tokenizer(str(FOLDER))
    for name, info in TASKS.items():
        if info.source != "package":
            continue
        task = load_task(name)
        if info.toy:
            check_words(tokenizer, task)
        else:
            with pytest.raises(TaskError, match="does not know the words"):
                check_words(tokenizer, task)


def test_every_panel_and_command_has_an_example(capsys):
    assert list(EXAMPLES) == [name for commands in COMMANDS.values() for name in commands]
    assert overview().count("  e.g. culnig-tl ") == len(COMMANDS)
    for name, example in EXAMPLES.items():
        assert example.startswith(f"culnig-tl {name}")
        with pytest.raises(SystemExit):
            main([*name.split(), "--help"])
        assert example in " ".join(capsys.readouterr().out.split())


def test_tasks_are_listed_one_a_line(monkeypatch):
    monkeypatch.delenv("CULNIG_DATA_DIR", raising=False)
    lines = invoked("tasks").splitlines()
    for row in list_tasks():
        (line,) = (text for text in lines if text.startswith(f"│ {row.name} "))
        assert row.licence in line and row.source in line


def test_a_control_by_name_is_the_same_as_by_option(checkpoints, tmp_path):
    common = ["score", "--model", checkpoints("llama"), "--device", "cpu", "--limit", 8]
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    printed = invoked(*common, "--task", "miniculture:control", "-o", files[0])
    invoked(*common, "--task", "miniculture", "--control", "-o", files[1])
    one, other = map(NeuronScores.load, files)
    assert one.task == other.task == "miniculture:control"
    assert all(np.array_equal(one.arrays[site], other.arrays[site]) for site in one.sites)
    assert "score: P(answer) times the estimated loss of P(answer) without the neuron" in printed


def test_libraries_are_quiet():
    code = """
from culnig_tl.cli import main
main(["models"])
import logging, huggingface_hub, datasets
for name in ("huggingface_hub", "huggingface_hub.utils._http", "datasets"):
    assert not logging.getLogger(name).isEnabledFor(logging.WARNING), name
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=120)
