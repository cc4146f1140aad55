"""What determines a study. The dataclasses here are arguments, the command line's options with their help,
and `study.json`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ..defaults import DROP_READING, MIN_Z, PAPER_TASKS, RANDOM_SETS, TOP_ATTN, TOP_MLP, TOP_SPECIFIC, TOY
from ..errors import StudyError
from ..tasks.rows import is_unicode
from ..tasks.wordings import PAPER as PAPER_WORDINGS

UNCHANGED, GENERAL, SPECIFIC, RIVAL = "unchanged", "culture-general", "culture-specific", "rival"
RANDOM = {"count": "random", "layer": "random by layer"}
"""How random sets are matched -> their name in tables."""
MOST_SHARE = 0.5
"""Of the neurons: random sets of more would be those that were selected."""


@dataclass(frozen=True, kw_only=True)
class ModelName:
    """Which model."""

    model: str = TOY
    """"toy", a Hub id such as Qwen/Qwen3-0.6B, a folder with a Hugging Face checkpoint, or a GGUF file:
    model.gguf, or org/name:model.gguf on the Hub."""
    revision: str | None = None
    """Branch, tag or commit on the Hub."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where a model runs, and where its questions come from."""

    device: str = "auto"
    """auto, cuda, cuda:0, mps or cpu."""
    dtype: str = "auto"
    """auto, bfloat16, float32 or float64."""
    batch_size: int | Literal["auto", "even"] = "auto"
    """Questions per batch; auto: as many as fit; even: as many as fit of one length each, without padding, so
    that a bfloat16 model says the same of a question as alone."""
    data_dir: str | None = None
    """Local mirror of the Hub's data sets, FOLDER/<org>/<name>; by default CULNIG_DATA_DIR's."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Machine, ModelName):
    """A model to load, and the questions to ask it."""

    device_map: str | None = None
    """"auto" spreads the model over all GPUs (and the CPU); instead of a device."""
    limit: int | None = None
    """Questions per task and split, spread evenly over countries and wordings; none asks all of them."""


@dataclass(frozen=True, kw_only=True)
class Asking:
    """How questions are asked."""

    form: Literal["letters", "cloze", "auto"] = "letters"
    """How questions are answered: by a label (letters, the paper's), by the likelihood of the options' words
    (cloze, for base and small models), or in whichever form the unchanged model is further above chance
    (auto)."""
    normalise: Literal["unconditional", "sum", "length"] = "unconditional"
    """cloze: what an option's log-likelihood is held against: that of its words without the question,
    nothing, or its length."""
    chat_template: bool = False
    """cloze: put the plain prompt in the tokenizer's chat template, where prompts of letters always are."""
    allow_regions: bool = False
    """Of your own files: take a name in the column country that is no country's for a region."""
    wordings: str | None = None
    """TOML file of instruction wordings that replace the package's, for the tasks that it names; or paper:
    the package's in the form of the paper's."""


@dataclass(frozen=True, kw_only=True)
class Shares:
    """How many neurons count as culture-general."""

    top_mlp: float = TOP_MLP
    """Share of the MLP neurons that are candidates."""
    top_attn: float = TOP_ATTN
    """Share of the pooled q, k, v neurons that are candidates."""
    drop_reading: float = DROP_READING
    """Share, highest by reading comprehension, that is removed from them."""


@dataclass(frozen=True, kw_only=True)
class StudyConfig(Shares, Asking, ModelConfig):
    """Everything that determines a study's result."""

    tasks: tuple[str, ...] = ("blend", "commonsenseqa", "qnli", "mrpc")
    """Tasks to ask; the neurons are found on the first one that has cultural questions with a control.
    lm_eval:NAME is a task of lm-evaluation-harness."""
    split: Literal["auto", "neuron", "test", "all"] = "auto"
    """Which questions are asked. auto: all, as in the paper, but the test split alone of a task that neurons
    were found on (the tasks of culture, reading and rival); or neuron, test, all of every task."""
    reading: str = "countryrc"
    """Country reading comprehension: neurons that serve it are removed."""
    rival: str | None = "commonsenseqa"
    """Task without culture, of the tasks: as many neurons with its highest scores are suppressed too."""
    top_specific: float = TOP_SPECIFIC
    """Share of all neurons that are candidates for one country."""
    z: float = MIN_Z
    """Least z of a country's own neurons over the countries."""
    rows: int | None = None
    """Rows of the same question, which differ in their wrong options alone (blend has up to five per country
    and question); none takes all of them."""
    random_sets: int = RANDOM_SETS
    """Random sets of each kind: matched by count, as in the paper, and by count in every site and layer."""
    random_questions: int | Literal["auto", "all"] = "auto"
    """Questions per task that random sets are asked, in whole clusters spread over the countries: a number,
    all, or as many as give one set's drop a standard error of half a point, at least 300, and no more than
    all random sets together can be asked in two passes over the questions (auto)."""
    seed: int = 0
    """Seed of the first random set, the others follow, and of the questions that random sets are asked."""

    @property
    def rival_task(self) -> str | None:
        """The rival's name as a task: a file's is its stem."""
        from ..tasks.question import task_name  # slower than what the command line waits for

        return None if self.rival is None else task_name(self.rival)

    @property
    def shares(self) -> Shares:
        """The shares alone."""
        return Shares(**{f.name: getattr(self, f.name) for f in fields(Shares)})


TOY_CONFIG = StudyConfig(
    tasks=("miniculture", "minicommonsense", "minireading", "miniparaphrase", "minianswers"),
    reading="minireading",
    rival="minicommonsense",
    top_mlp=0.05,
    top_attn=0.01,
    top_specific=0.02,
    random_questions="all",
)
"""The toy has a thousandth of a real model's neurons: 1% of them is two dozen. These shares were fixed before
any result of suppressing neurons in the shipped model was seen. It answers at once, so its random sets are
asked all questions."""


PAPER_CONFIG = StudyConfig(
    tasks=PAPER_TASKS,
    reading="countryrc-paper",
    wordings=PAPER_WORDINGS,
    split="auto",
    random_questions="all",
)
"""The paper's protocol: its tasks, rows, thresholds, number of random sets, and form of wordings, in this
project's words. What still differs is listed in docs/methods.md."""


def defaults_for(model: str, preset: str | None = None) -> StudyConfig:
    """What holds for a model where nothing else is said: the toy's own tasks and shares, or those of the
    paper; with the preset "paper" the whole of its protocol.

    Raises `StudyError` for the toy with that preset, and for another preset.
    """
    if preset is None:
        return TOY_CONFIG if model == TOY else StudyConfig(model=model)
    if preset != "paper":
        raise StudyError(f"unknown preset {preset!r}: there is paper")
    if model == TOY:
        raise StudyError("--preset paper needs --model: the embedded model knows its own tasks only")
    return replace(PAPER_CONFIG, model=model)


def config_from(stored: Mapping[str, Any]) -> StudyConfig:
    """The configuration in a `study.json`. Raises `StudyError` for an argument that this version does not
    know, or of another type."""
    kinds = get_type_hints(StudyConfig)
    unknown = set(stored) - set(kinds)
    if unknown:
        raise StudyError(f"study.json has an argument that this version does not know: {sorted(unknown)[0]}")
    tasks = stored["tasks"]
    given: dict[str, Any] = {**stored, "tasks": tuple(tasks) if isinstance(tasks, (list, tuple)) else tasks}
    for name, value in given.items():
        if not _is_a(value, kinds[name]):
            raise StudyError(f"study.json says {name} = {str(value)[:60]!r}, which is of another type")
    return StudyConfig(**given)


def _is_a(value: Any, kind: Any) -> bool:
    """Whether a value is of the type that a field's annotation names."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Literal:
        return value in parts and isinstance(value, str)
    if origin is tuple:
        return isinstance(value, tuple) and all(_is_a(part, parts[0]) for part in value)
    if parts:
        return any(_is_a(value, part) for part in parts)
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, kind) and not (kind is int and isinstance(value, bool))


def check_config(config: StudyConfig) -> None:
    """Raises `StudyError` where a study could not end, whatever its model and questions are."""
    for name in ("top_mlp", "top_attn", "top_specific", "drop_reading"):
        share = getattr(config, name)
        if not 0 <= share <= MOST_SHARE or (share == 0 and name == "top_mlp"):
            option = name.replace("_", "-")
            raise StudyError(f"--{option} is a share from 0 to {MOST_SHARE} (1% is 0.01), not {share}")
    for name, least in (("limit", 1), ("batch_size", 1), ("random_sets", 1), ("seed", 0)):
        count = getattr(config, name)
        if isinstance(count, int) and not least <= count < 2**32:
            raise StudyError(f"--{name.replace('_', '-')} is a whole number from {least}, not {count}")
    if not math.isfinite(config.z):
        raise StudyError(f"--z is a number, not {config.z}")
    if not config.tasks:
        raise StudyError("no task is named: say --tasks blend, or another with cultural questions")
    for text in (config.model, *config.tasks, config.reading, config.rival or "", config.data_dir or ""):
        if not is_unicode(text):
            raise StudyError(f"{text!r} holds half a character (a lone surrogate): write it in UTF-8")
