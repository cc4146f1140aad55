"""What there is (`tasks`, `models`), answers in words, fine-tuning, and baked checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from ..defaults import PAPER_MODELS, TOY
from ..errors import FineTuningError, NeuronError
from ..finetuning.config import PAPER_FORGETTING, TOY_FORGETTING, ForgettingConfig, TrainingConfig
from ..study.config import ModelConfig
from .output import out, say, show, show_frame
from .parsing import MaybeOutput, Positional, defaults_from, given


def tasks(*, data_dir: str | None = None) -> None:
    """Lists the tasks, one a line: rows as published, questions that are here, splits, control, licence, and
    where the rows come from.

    Args:
        data_dir: Local mirror of the Hub's data sets: FOLDER/<org>/<name>.
    """
    import pandas as pd

    from ..tasks import list_tasks

    listed, problems = [], {}
    for row in list_tasks(data_dir=data_dir):
        listed.append(
            {
                "task": row.name,
                "rows": _count(row.published),
                "questions": _count(row.questions),
                "splits": ", ".join(row.splits),
                "control": "yes" if row.control else "no",
                "licence": row.licence,
                "source": row.source,
            }
        )
        if row.problem is not None:
            problems.setdefault(row.problem.split(";")[0], []).append(row.name)
    show_frame(pd.DataFrame(listed), "rows: as published; questions: those that are on this machine")
    say(*(f"{', '.join(names)}: {problem}" for problem, names in problems.items()))


def _count(number: int | None) -> str:
    return "–" if number is None else f"{number:,}"


def tasks_show(
    task: Positional[str],
    *,
    model: str = TOY,
    limit: int = 3,
    control: bool = False,
    form: Literal["letters", "cloze"] = "letters",
    chat_template: bool = False,
    wordings: str | None = None,
    allow_regions: bool = False,
    data_dir: str | None = None,
) -> None:
    """Prints whole prompts as the model gets them, the answer marked.

    Args:
        task: A task's name, or a file of questions. A name that ends in :control is its control.
        model: "toy", a Hub id, or a folder with a checkpoint: whose tokenizer makes the prompt.
        limit: How many prompts.
        control: Show the control prompts.
        form: Answered by a label, or by the likelihood of the options' words.
        chat_template: cloze: put the plain prompt in the tokenizer's chat template.
        wordings: TOML file of instruction wordings that replace the package's; or paper.
        allow_regions: Of your own files: take a name in the column country that is no country's for a region.
        data_dir: Local mirror of the Hub's data sets: FOLDER/<org>/<name>.
    """
    from rich.markup import escape

    from ..engine.chat import unmark
    from ..engine.cloze import written_cloze
    from ..engine.loading import check_name, load_tokenizer
    from ..engine.prompts import render
    from ..tasks import load_task
    from ..toy import FOLDER

    how: dict[str, Any] = {"form": form, "chat_template": chat_template, "wordings": wordings}
    how |= {"allow_regions": allow_regions, "data_dir": data_dir}
    check_name(model)
    tokenizer = load_tokenizer(str(FOLDER) if model == TOY else model)
    questions = load_task(task, control=control, limit=limit, **how)
    for question in questions:
        about = (question.id, question.split, question.country, question.group)
        out.rule(escape(", ".join(str(part) for part in about if part)), align="left")
        if question.form == "cloze":
            right = question.texts[question.options.index(question.answer)]
            others = ", ".join(other for other in question.texts if other != right)
            prompt = "".join(
                unmark(tokenizer, part) for part in written_cloze(tokenizer, question, question.prompt)
            )
            text = f"{escape(prompt)}[bold green]{escape(right)}[/]  (or: {escape(others)})"
        else:
            text = f"{escape(render(tokenizer, question))}[bold green]{escape(question.answer)}[/]"
        out.print(text, soft_wrap=True, highlight=False)


def tasks_export(
    task: Positional[str],
    *,
    to: Path,
    model: str | None = None,
    form: Literal["letters", "cloze"] = "letters",
    split: Literal["neuron", "test", "all"] = "test",
    limit: int | None = None,
    data_dir: str | None = None,
) -> None:
    """Writes a task for lm-evaluation-harness: a YAML file, its questions, and the Python file that reads
    them.

    Args:
        task: A task's name, or a file of questions. A name that ends in :control is its control.
        to: Folder to write to; it may hold other exported tasks.
        model: letters: "toy", a Hub id, or a folder with a checkpoint: in whose chat template prompts are
            written; plain text where none is given.
        form: Answered by a label, or by the likelihood of the options' words.
        split: Which of the task's questions.
        limit: Questions, spread evenly over countries and wordings; none exports all of them.
        data_dir: Local mirror of the Hub's data sets: FOLDER/<org>/<name>.
    """
    from ..engine.loading import check_name, load_tokenizer
    from ..lm_eval.export import export_task
    from ..tasks import load_task
    from ..toy import FOLDER

    which = None if split == "all" else split
    if model is not None:
        check_name(model)
    questions = load_task(task, split=which, limit=limit, form=form, data_dir=data_dir)
    tokenizer = load_tokenizer(str(FOLDER) if model == TOY else model) if model is not None else None
    file = export_task(questions, to, tokenizer=tokenizer)
    say(
        questions,
        f"lm_eval --model hf --model_args pretrained={model or 'M'} --include_path {to} --tasks {file.stem}",
    )


def models() -> None:
    """Lists the models of the paper, and the embedded one."""
    say(
        TOY,
        *PAPER_MODELS,
        "... and any other Hub id that TransformerLens' bridge can hold, a folder, or a GGUF file.",
    )


def answers_ask(
    config: ModelConfig,
    *,
    language: Literal["local", "en"] = "local",
    neurons: Path | None = None,
    scale: float = 0.0,
    random: tuple[Path, ...] = (),
    max_new_tokens: int = 512,
    output_dir: Path = Path("runs/answers"),
) -> None:
    """Asks BLEnD's short-answer questions, unchanged and with neurons suppressed. Run again, it resumes where
    it was stopped.

    Args:
        language: Each region's own language, or English.
        neurons: Neurons to scale; without them the model is unchanged.
        scale: What the neurons' outputs are multiplied by: 0 suppresses them, 2 enhances them.
        random: Random neurons to compare with, as `culnig-tl select random` writes them.
        max_new_tokens: Tokens of an answer at most.
        output_dir: Where answers and tables go.
    """
    from .. import analyses
    from ..data.neurons import NeuronSet
    from ..run.pipeline import load

    if random and neurons is None:
        raise NeuronError("--random compares with --neurons: name both")
    found = analyses.short_answers(
        load(config),
        output_dir,
        neurons=NeuronSet.load(neurons) if neurons else None,
        random=[NeuronSet.load(path) for path in random],
        language=language,
        scale=scale,
        max_new_tokens=max_new_tokens,
        limit=config.limit,
        data_dir=config.data_dir,
        batch_size=config.batch_size,
    )
    show(found, output_dir, "comparison")


def answers_check(
    *,
    languages: tuple[str, ...] = (),
    output: MaybeOutput = None,
    data_dir: str | None = None,
) -> None:
    """Precision and recall of comparing answers, by language, on variants that BLEnD's annotators grouped or
    told apart.

    Args:
        languages: Codes, e.g. ko,zh; all thirteen where none is given.
        output: CSV file to write.
        data_dir: Local mirror of the Hub's data sets: FOLDER/<org>/<name>.
    """
    from .. import io
    from ..method.answers.variants import agreement

    table = agreement(data_dir=data_dir, languages=languages or None)
    show_frame(table.drop(columns="analyser").round(3))
    say(*(f"{language}: {analyser}" for language, analyser in table["analyser"].items()))
    if output:
        io.write(output, io.csv_of(table, index=True).encode())


@dataclass(frozen=True)
class Training(TrainingConfig):
    """How to train."""

    batch_size: Annotated[int, tyro.conf.arg(name="train-batch-size")] = 4
    seed: tyro.conf.Suppress[int] = 0
    """Each of --seeds in turn."""


@dataclass(frozen=True)
class Forgetting(ForgettingConfig):
    """What to train on, which modules, and what to ask."""

    training: Training = field(default_factory=Training)


def _of_model(words: Sequence[str]) -> dict[str, Any]:
    """The defaults of `finetune`: the toy's own, or a real model's, or the paper's protocol."""
    toy = (given(words, "--model") or TOY) == TOY
    usual = TOY_FORGETTING if toy else ForgettingConfig()
    if given(words, "--preset") == "paper":
        if toy:
            raise FineTuningError("--preset paper needs --model: the embedded model knows its own tasks only")
        usual = PAPER_FORGETTING
    shown: dict[str, Any] = {**vars(usual), "training": Training(**vars(usual.training))}
    return {"config": Forgetting(**shown)}


@defaults_from(_of_model)
def finetune(
    config: Forgetting,
    *,
    preset: Literal["paper"] | None = None,
    neurons: Path | None = None,
    output_dir: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> None:
    """Trains a model on a task by chosen modules alone, and measures what becomes of culture, group by group.

    The fine-tuned checkpoints are ordinary Hugging Face folders under models/; freeze-list.json names what to
    spare elsewhere. torchrun shares the work among processes.

    Args:
        preset: paper: the defaults are the paper's protocol: one wording, its rows and seed, no norms.
        neurons: The model's culture-general neurons; they are found first where none are given.
        output_dir: Folder; runs/finetune-<model>-<task> where none is given.
        resume: Resume what the folder holds.
        overwrite: Make what the folder holds anew.
    """
    from ..data.neurons import NeuronSet
    from ..engine.loading import check_name
    from ..finetuning import measure_forgetting

    parsed: dict[str, Any] = {**vars(config), "training": TrainingConfig(**vars(config.training))}
    plain = ForgettingConfig(**parsed)
    check_name(plain.model)
    folder = output_dir or Path("runs") / f"finetune-{Path(plain.model).name}-{Path(plain.task).stem}"
    chosen = NeuronSet.load(neurons) if neurons else None
    found = measure_forgetting(plain, folder=folder, neurons=chosen, resume=resume, overwrite=overwrite)
    for seeds in found.groups.values():
        say(*dict.fromkeys(map(str, seeds.values())))
    say(*(next(iter(seeds.values())) for seeds in found.models.values()))
    say(f"\n{found}", "Change in points; over seeds: standard deviation, least, most")
    show_frame(found.summary())
    say("Where the culture-general neurons went")
    show_frame(found.overlap())
    say(f"\nWritten to {folder}: models/, results/, neurons/, figures/, tables, freeze-list.json")


def bake(model: Positional[str], *, neurons: Path, output_dir: Path) -> None:
    """Writes a model with neurons suppressed as an ordinary checkpoint, so that any other tool can evaluate
    it.

    Args:
        model: Folder with a Hugging Face checkpoint in safetensors, a GGUF file, or "toy".
        neurons: Neurons to suppress: .parquet, .csv, .xlsx, the authors' .json, or LAPE's .pth.
        output_dir: New folder of the checkpoint.
    """
    from ..data.neurons import NeuronSet
    from ..engine.loading import check_name
    from ..finetuning.baking import bake as write

    check_name(model)
    chosen = NeuronSet.load(neurons)
    say(chosen, f"The suppressed model: {write(model, chosen, output_dir)}")
