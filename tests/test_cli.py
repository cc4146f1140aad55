"""The command line: what it prints, and what it says of bad input."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import pytest

from culnig_tl.cli import COMMANDS, main, overview
from culnig_tl.data.neurons import NeuronSet
from culnig_tl.data.scores import NeuronScores
from culnig_tl.errors import CulnigError, StudyError
from culnig_tl.study.config import PAPER_CONFIG, TOY_CONFIG, StudyConfig

from .helpers import invoked

NAMES = [name for commands in COMMANDS.values() for name in commands]
HEAVY = ("torch", "transformer_lens", "plotly", "pandas")


def command(*words: str, **kwargs) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "culnig_tl", *words], capture_output=True, text=True, timeout=120, **kwargs
    )


def help_of(*words: str, into: Path) -> list[str]:
    """A command's options, each with its help in one line."""
    with (
        into.open("w", encoding="utf-8") as stream,
        redirect_stdout(stream),
        pytest.raises(SystemExit) as end,
    ):
        main([*words, "--help"])
    assert end.value.code == 0
    options: list[str] = []
    for line in into.read_text(encoding="utf-8").splitlines():
        text = line.strip("│ ")
        if line.startswith("│ -"):
            options.append(" ".join(text.split()))
        elif line.startswith("│   ") and options:
            options[-1] += f" {text}"
    return options


def test_no_help_loads_anything_heavy():
    lines = [["--help"], ["--version"], [], ["answers"], *([*name.split(), "--help"] for name in NAMES)]
    code = f"""
import sys
from culnig_tl.cli import main
for words in {lines!r}:
    try:
        main(words)
    except SystemExit:
        pass
    print([words, [module for module in {HEAVY!r} if module in sys.modules]], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == [str([words, []]) for words in lines]


def test_the_overview_has_every_command_and_panel():
    text = overview()
    assert all(f"\n  {name} " in text for name in NAMES)
    assert [line for line in text.splitlines() if line.lower() in COMMANDS] == [
        "Study",
        "Pieces",
        "Analyses",
        "Tools",
    ]
    assert invoked("--help") == invoked() == f"{text}\n"


@pytest.mark.parametrize("name", NAMES)
def test_every_option_of_a_command_has_help_and_a_default(name, tmp_path):
    first, *options = help_of(*name.split(), into=tmp_path / "help.txt")
    assert first.startswith("-h, --help")
    for words in options:
        assert "(default:" in words or words.endswith("(required)"), words
        assert len(words.split()) > 4, f"no help: {words}"


def test_the_help_of_run_shows_what_holds_for_the_model(tmp_path):
    for model, config in (("toy", TOY_CONFIG), ("some/model", StudyConfig())):
        options = {
            words.split()[0]: words for words in help_of("run", "--model", model, into=tmp_path / "help.txt")
        }
        assert options["--tasks"].replace(" ", "").endswith(f"(default:{','.join(config.tasks)})")
        assert options["--top-mlp"].endswith(f"(default: {config.top_mlp})")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["run", "--model", "/no/such/folder"], "no such folder: /no/such/folder"),
        (["run", "--model", "toy", "--tasks", "blund"], "blend"),
        (
            ["run", "--batch-size", "many"],
            "Error: --batch-size: expected a whole number, auto or even, not 'many'",
        ),
        (["run", "--limit", "0"], "limit"),
        (["run", "--limit", "few"], "Error: --limit: expected a whole number or none, not 'few'"),
        (["run", "--dtype", "float16"], "float16 is refused"),
        (["run", "--nonsense"], "--nonsense"),
        (["run", "--tsks", "blend"], "Perhaps you meant: --tasks"),
        (["run", "--piece", "gather"], "--piece needs --from"),
        (["run", "--preset", "paper"], "--preset paper needs --model"),
        (["run", "--preset", "papr", "--model", "m"], "unknown preset 'papr': there is paper"),
        (["run", "--from", "x", "--preset", "paper"], "leave out --preset"),
        (["finetune", "--preset", "paper"], "--preset paper needs --model"),
        (["run", "--split", "train"], "Error: --split: expected auto, neuron, test or all, not 'train'"),
        (["run", "--wordings", "no.toml"], "no.toml: not a readable TOML file of wordings"),
        (["runn"], "there is no command 'runn': did you mean run?"),
        (["answers", "aks"], "there is no command 'answers aks': did you mean answers ask?"),
        (["select", "general", "--scores", "x"], "Missing from culnig-tl select: -o PATH, --output PATH"),
        (
            ["select", "general", "--scores", "nowhere.safetensors", "-o", "x.parquet"],
            "no such file of scores: nowhere.safetensors",
        ),
        (["select", "special", "--scores", "x", "-o", "x.parquet"], "general, specific or random"),
        (["evaluate", "--neurons", "nowhere.parquet"], "no such file of neurons: nowhere.parquet"),
        (["evaluate", "--resume"], "--resume needs --output"),
        (["report", "nowhere"], "nowhere holds no study"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(words, says, tmp_path, capsys):
    if words[0] == "run":
        words = [*words, "--output-dir", str(tmp_path / "out")]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith("Error: ") and says in said and len(said.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


def test_an_error_leaves_the_process_with_2_and_no_traceback():
    done = command("report", "nowhere")
    assert done.returncode == 2 and "nowhere holds no study" in done.stderr and "Traceback" not in done.stderr
    assert "Traceback" in command("--debug", "report", "nowhere").stderr


@pytest.fixture
def studied(monkeypatch):
    """`studied(*words)`: the arguments that `run` with these words calls `run_study` with."""
    from culnig_tl.run import pipeline

    seen = {}

    def caught(config, **options):
        seen.update(config=config, **options)
        raise CulnigError("enough")

    def arguments(*words):
        with pytest.raises(CulnigError, match="enough"):
            invoked("run", *words)
        return seen

    monkeypatch.setattr(pipeline, "run_study", caught)
    return arguments


def test_none_and_commas_are_understood(studied):
    seen = studied("--rival", "none", "--tasks", "a, b", "--batch-size", 3, "--limit=7", "--overwrite")
    config = seen["config"]
    assert (config.rival, config.tasks, config.batch_size, config.limit) == (None, ("a", "b"), 3, 7)
    assert seen["overwrite"] and not seen["resume"] and config.reading == TOY_CONFIG.reading


def test_the_preset_is_the_papers_protocol(studied):
    config = studied("--preset", "paper", "--model", "some/model")["config"]
    assert config == replace(PAPER_CONFIG, model="some/model")
    assert (config.reading, config.wordings, config.tasks[1]) == ("countryrc-paper", "paper", "culturalbench")


def test_options_go_before_the_preset(studied):
    config = studied("--preset", "paper", "--model", "m", "--tasks", "blend", "--split", "test")["config"]
    assert (config.tasks, config.split, config.wordings) == (("blend",), "test", "paper")


def test_score_by_several_methods(tmp_path, checkpoints):
    model = ["--model", checkpoints("llama"), "--device", "cpu", "--limit", 8]
    assert "8 questions" in invoked("score", *model, "--method", "atp", "-o", tmp_path / "atp.safetensors")
    assert NeuronScores.load(tmp_path / "atp.safetensors").metadata["method"] == "atp"
    invoked(
        "score",
        *model,
        "--method",
        "culnig,culnig-sum",
        "--task",
        "miniculture:control",
        "-o",
        tmp_path / "s.safetensors",
    )
    for name in ("culnig", "culnig-sum"):
        scores = NeuronScores.load(tmp_path / f"s.{name}.safetensors")
        assert scores.metadata["method"] == name and scores.task == "miniculture:control"
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{name}.safetensors" for name in ("atp", "s.culnig", "s.culnig-sum")
    }


def test_score_select_evaluate_from_the_shell(checkpoints, tmp_path):
    model = ["--model", checkpoints("llama"), "--device", "cpu", "--limit", 16]
    files = {name: tmp_path / f"{name}.safetensors" for name in ("scores", "control", "reading")}
    assert "16 questions" in invoked("score", *model, "--task", "miniculture", "-o", files["scores"])
    invoked("score", *model, "--task", "miniculture", "--control", "-o", files["control"])
    invoked("score", *model, "--task", "minireading", "-o", files["reading"])
    scores = NeuronScores.load(files["scores"])
    assert scores.metadata["task"] == "miniculture" and sum(scores.questions) == 16
    assert NeuronScores.load(files["control"]).metadata["clamped"] is True

    given = [word for name, path in files.items() for word in (f"--{name}", path)]
    invoked("select", "general", *given, "--top-mlp", 0.1, "-o", tmp_path / "general.parquet")
    same = ["--scores", files["scores"], "--matching", tmp_path / "general.parquet", "--match", "layer"]
    invoked("select", "random", *same, "-o", tmp_path / "random.csv")
    general, random = NeuronSet.load(tmp_path / "general.parquet"), NeuronSet.load(tmp_path / "random.csv")
    assert general.counts(["site", "layer"]).equals(random.counts(["site", "layer"]))

    tasks = ["--tasks", "miniculture,minianswers", "--neurons", tmp_path / "general.parquet"]
    printed = invoked("evaluate", *model, *tasks, "-o", tmp_path / "r.parquet")
    assert "miniculture" in printed and "minianswers" in printed and (tmp_path / "r.parquet").is_file()


def test_random_neurons_need_a_set_to_match(tmp_path, checkpoints):
    scores = tmp_path / "s.safetensors"
    invoked("score", "--model", checkpoints("llama"), "--device", "cpu", "--limit", 4, "-o", scores)
    with pytest.raises(StudyError, match="--matching FILE"):
        invoked("select", "random", "--scores", scores, "-o", tmp_path / "x.parquet")


def test_ctrl_c_leaves_130_and_no_half_written_file(checkpoints, tmp_path):
    """The signal arrives while questions are asked."""
    folder = tmp_path / "out"
    words = [
        "run",
        "--model",
        str(checkpoints("llama")),
        "--tasks",
        "miniculture",
        "--reading",
        "minireading",
    ]
    words += ["--device", "cpu", "--batch-size", "1", "--output-dir", str(folder)]
    running = subprocess.Popen(
        [sys.executable, "-m", "culnig_tl", *words],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a test runner may have it ignored
    )
    deadline = time.time() + 100
    while not (folder / "study.json").exists() and time.time() < deadline:
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130, said
    assert "Stopped" in said and "Traceback" not in said
    names = {path.name for path in Path(folder).iterdir()}
    assert names <= {"study.json", "state"}, "the state of the scoring that was begun may stand"
