"""Culture, or answering at all? The comparison of docs/selective.md, whose protocol came first.

python docs/selective.py smollm2.gguf runs/selective --data-dir mirror           # again: it resumes
python docs/selective.py smollm2.gguf runs/selective --table                     # no model: what is there
python docs/selective.py smollm2.gguf runs/selective --confirm --data-dir mirror # one set, on new questions
python docs/selective.py toy runs/selective-toy                     # which of the neurons are culture's own
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from culnig_tl import (
    EvaluationResult,
    NeuronScores,
    NeuronSet,
    Site,
    Task,
    describe,
    evaluate,
    load_model,
    load_task,
    mean_outputs,
    select_general,
    select_random,
)
from culnig_tl.data.neurons import SITES
from culnig_tl.data.results import concat
from culnig_tl.engine.checkpoint import Checkpoint
from culnig_tl.engine.cloze import asked_of
from culnig_tl.engine.hooks import Reading, SiteHooks
from culnig_tl.engine.models import HookedModel
from culnig_tl.engine.run import Batch, State, run_pass
from culnig_tl.method.asking import asking
from culnig_tl.method.plain_text import TextLoss, text_loss
from culnig_tl.study.comparison import halves
from culnig_tl.study.config import TOY_CONFIG
from culnig_tl.study.stored import FOLDER, SECOND
from culnig_tl.toy import FOLDER as TOY
from culnig_tl.toy.homes import homes_of

FOLDS, RANDOM_SETS, DRAWS = 4, 5, 10_000
STUDY = "smollm2-135m-instruct"
"""Its answers unchanged and with random sets are used again."""
CULTURE, CONTROL, OTHER, READING = "culture", "control", "commonsenseqa", "reading"


def questions(found: int, **how: Any) -> tuple[dict[str, Task], dict[str, Task]]:
    """(what is scored, what is held out), by name. Held out are questions of the stored study, so that its
    answers can be used."""
    blend, commonsense = load_task("blend", **how), load_task(OTHER, **how)
    culture = blend.neuron_split().rows(1).limit(found)
    first, _ = halves(commonsense)
    scored = {CULTURE: culture, CONTROL: culture.control(), OTHER: first.limit(found)}
    known = stored("unchanged")
    ids = {task: set(known.table.loc[known.table["task"] == task, "id"]) for task in ("blend", OTHER)}
    ids[OTHER] -= {q.id for q in scored[OTHER]}
    held = {"blend": blend, OTHER: commonsense}
    return scored, {name: task.filter(lambda q, name=name: q.id in ids[name]) for name, task in held.items()}


def stored(setting: str) -> EvaluationResult:
    """A setting's answers in the package's study: to the second half of BLEnD, and to CommonsenseQA."""
    rest = EvaluationResult.load(FOLDER / STUDY / "results" / f"{setting}.parquet").of_task(OTHER)
    blend = EvaluationResult.load(FOLDER / STUDY / SECOND / f"{setting}.parquet")
    return EvaluationResult(pd.concat([blend.table, rest.table], ignore_index=True), {})


class Matrix:
    """P(answer) times the score of every neuron on every question, [question, neuron]: the largest over the
    tokens, and their sum."""

    def __init__(
        self, task: Task, arrays: dict[str, np.ndarray], widths: dict[Site, tuple[int, int]]
    ) -> None:
        self.task, self.arrays, self.widths = task, arrays, widths
        self.clusters = np.array([q.cluster for q in task])

    def scores(self, how: str, rows: np.ndarray | None = None) -> NeuronScores:
        """Summed over questions, as `select_general` takes them.

        Args:
            how: "max", "sum", or "even": sums, each question's divided by their root mean square over the
                neurons, so that all questions weigh the same.
            rows: of the questions; all by default.
        """
        rows = np.arange(len(self.task)) if rows is None else rows
        values = self.arrays["max" if how == "max" else "sum"][rows]
        if how == "even":
            values = values / np.sqrt((values**2).mean(1, keepdims=True)).clip(1e-30)
        total, arrays, start = values.sum(0, dtype=np.float64).astype(np.float32), {}, 0
        for site, (layers, width) in self.widths.items():
            arrays[site] = total[start : start + layers * width].reshape(1, layers, width)
            start += layers * width
        n = len(set(self.clusters[rows]))
        return NeuronScores(arrays, ("-",), (len(rows),), (0.0,), n, (n,), {"task": self.task.name})


def matrix(model: HookedModel | None, task: Task, path: Path) -> Matrix:
    """A task's, from the folder where it is there."""
    if not path.is_file():
        assert model is not None
        np.savez(path, **_measured(model, task, path.with_suffix(".state")))
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in ("max", "sum")}
        widths = {Site.parse(str(s)): (int(a), int(b)) for s, a, b in stored["widths"]}
    return Matrix(task, arrays, widths)


def _measured(model: HookedModel, task: Task, state_file: Path) -> dict[str, Any]:
    asked, info = asked_of(model, task), describe(model)
    starts, size = {}, 0
    for site in SITES:
        starts[site] = size
        size += info.layers * info.widths[site]
    state: State = {name: torch.zeros(len(asked.prompts), size) for name in ("max", "sum")}
    hooks = SiteHooks(model, backward=SITES)

    def step(batch: Batch, state: State) -> None:
        asks = asking(model, batch.prompts, batch.tokens, batch.mask)
        p: list[torch.Tensor] = []

        def objective() -> torch.Tensor:
            p.append(asks.ask().p_right)
            return p[0].sum()

        def receive(site: Site, layer: int, reading: Reading) -> None:
            products = asks.reading(reading).products
            assert products is not None
            real = asks.real.to(products.device)[:, :, None]
            at = slice(
                starts[site] + layer * info.widths[site], starts[site] + (layer + 1) * info.widths[site]
            )
            weight = p[0].detach()[:, None]
            most = products.masked_fill(~real, -torch.inf).amax(1)
            state["max"][batch.index, at] = (weight * (most.clamp(min=0) if task.is_control else most)).cpu()
            state["sum"][batch.index, at] = (weight * products.masked_fill(~real, 0.0).sum(1)).cpu()

        hooks.run(objective, receive)

    kept = Checkpoint.of(state_file, resume=True)
    run_pass(
        model,
        asked.whole,
        asked.prompts,
        step,
        state,
        hooks=hooks,
        progress=False,
        checkpoint=kept,
        batch_size=8,
    )
    widths = [(str(site), info.layers, info.widths[site]) for site in SITES]
    return {**{name: table.numpy() for name, table in state.items()}, "widths": np.array(widths)}


# ------------------------------------------------------------------------------------------------- candidates

CANDIDATES: dict[str, tuple[str, dict[str, Any] | None]] = {
    "max": ("max", None),
    "sum": ("sum", None),
    "filter 1": ("sum", {"contrast_way": "filter", "contrast_over": 1.0}),
    "filter 0.5": ("sum", {"contrast_way": "filter", "contrast_over": 0.5}),
    "filter 0": ("sum", {"contrast_way": "filter", "contrast_over": 0.0}),
    "filter -0.1": ("sum", {"contrast_way": "filter", "contrast_over": -0.1}),
    "subtract": ("sum", {"contrast_way": "subtract"}),
    "ranks": ("sum", {"contrast_way": "ranks"}),
    "max, filter 0.5": ("max", {"contrast_way": "filter", "contrast_over": 0.5}),
    "even": ("even", None),
    "even, filter 0.5": ("even", {"contrast_way": "filter", "contrast_over": 0.5}),
    "even, filter 0": ("even", {"contrast_way": "filter", "contrast_over": 0.0}),
    "even, subtract": ("even", {"contrast_way": "subtract"}),
}
"""Name -> how questions are summed, and how CommonsenseQA is held against a neuron."""


def candidate(
    name: str, scored: dict[str, Matrix], rows: dict[str, np.ndarray] | None = None, **shares: float
) -> NeuronSet:
    """A candidate's set, found on some of the questions or on all."""
    how, contrast = CANDIDATES[name]
    of = {task: table.scores(how, None if rows is None else rows[task]) for task, table in scored.items()}
    against = {} if contrast is None else {"contrast": of[OTHER], **contrast}
    return select_general(of[CULTURE], of[CONTROL], of.get(READING), **against, **shares)


def at_home(folder: Path) -> None:
    """Prints how many of each candidate's neurons are those that training gave to culture, in the toy."""
    model, names = load_model("toy", device="cpu"), TOY_CONFIG.tasks
    culture, plain = (load_task(name, split="neuron") for name in names[:2])
    tasks = {CULTURE: culture, CONTROL: culture.control(), OTHER: plain}
    tasks[READING] = load_task(TOY_CONFIG.reading, split="neuron")
    scored = {name: matrix(model, task, folder / f"{name}.npz") for name, task in tasks.items()}
    home, shares = (
        homes_of(TOY)["culture"],
        {"top_mlp": TOY_CONFIG.top_mlp, "top_attn": TOY_CONFIG.top_attn},
    )
    held = {name: load_task(name).test_split() for name in names}
    base = {
        name: float(evaluate(model, task, progress=False).values(name).mean()) for name, task in held.items()
    }
    print(f"{'unchanged':20}", *(f"{name} {100 * value:.1f}" for name, value in base.items()))
    for name in CANDIDATES:
        chosen = candidate(name, scored, **shares)
        left = {
            task: 100 * float(evaluate(model, questions, ablate=chosen, progress=False).values(task).mean())
            for task, questions in held.items()
        }
        own = len(chosen & home) / len(chosen)
        print(
            f"{name:20} {len(chosen)} neurons, {own:.0%} culture's own;",
            *(f"{t} {v:.1f}" for t, v in left.items()),
        )


def folds(scored: dict[str, Matrix]) -> dict[str, dict[str, float]]:
    """Candidate -> first-order estimates of what each task loses on the folds that it was not found on, in
    points of P a question, and the criterion."""
    dealt = {}
    for name in (CULTURE, OTHER):
        clusters = sorted(set(scored[name].clusters))
        place = dict(zip(clusters, np.random.default_rng(0).permutation(len(clusters)) % FOLDS))
        dealt[name] = np.array([place[c] for c in scored[name].clusters])
    dealt[CONTROL] = dealt[CULTURE]  # the same questions in the same order
    found = {}
    for name in CANDIDATES:
        lost = {CULTURE: 0.0, OTHER: 0.0}
        for fold in range(FOLDS):
            kept = {task: np.flatnonzero(of != fold) for task, of in dealt.items()}
            chosen = candidate(name, scored, kept)
            for task in lost:
                here = scored[task].scores("sum", np.flatnonzero(dealt[task] == fold))
                sums = sum(
                    here.arrays[site][0, layer, index].sum()
                    for (site, layer), index in chosen.indices.items()
                )
                lost[task] += 100 * float(sums) / len(scored[task].task)
        found[name] = {**lost, "criterion": lost[CULTURE] - 2 * lost[OTHER]}
    return found


# ----------------------------------------------------------------------------------------------- held out


def settings(scored: dict[str, Matrix], best: str) -> dict[str, tuple[NeuronSet | None, str]]:
    """What is asked, in order -> (neurons, what takes their place: "zero" or "mean")."""
    sets = {name: candidate(name, scored) for name in CANDIDATES}
    first = list(dict.fromkeys(["filter 0.5", "sum", best, "subtract"]))
    asked: dict[str, tuple[NeuronSet | None, str]] = {name: (sets[name], "zero") for name in first}
    asked |= {f"{name}, means": (sets[name], "mean") for name in first[:2]}
    return asked | {name: (neurons, "zero") for name, neurons in sets.items()}


def ask(
    model: HookedModel,
    folder: Path,
    held: dict[str, Task],
    name: str,
    given: tuple[NeuronSet | None, str],
    on: Task,
) -> None:
    """One setting's answers and its loss on plain text, where the folder lacks them."""
    neurons, instead = given
    path = folder / "answers" / f"{name}.parquet"
    to = mean_outputs(model, on, progress=False) if instead == "mean" else None
    how: dict[str, Any] = {"ablate": neurons, "to": to}
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        concat([evaluate(model, task, progress=False, **how) for task in held.values()]).save(path)
    text = path.with_suffix(".json")
    if not text.is_file():
        loss = text_loss(model, **how)
        text.write_text(json.dumps({"nats": loss.nats, "tokens": loss.tokens}))
    print("asked:", name, flush=True)


CONFIRMED, NEW = "max, filter 0.5", {"blend": 320, OTHER: 240}
"""The candidate that is asked once more, and how many questions of each task that nothing was asked of
before."""


def confirm(model: HookedModel, folder: Path, scored: dict[str, Matrix], data_dir: str | None) -> None:
    """One candidate on new questions, against random sets of its own size; prints what it costs."""
    how: dict[str, Any] = {"form": "cloze", "data_dir": data_dir}
    blend, commonsense = load_task("blend", **how).test_split().rows(1), load_task(OTHER, **how)
    first = EvaluationResult.load(FOLDER / STUDY / "results" / "unchanged.parquet")
    asked = {*first.table["id"], *stored("unchanged").table["id"], *(q.id for q in scored[OTHER].task)}
    held = {"blend": blend, OTHER: halves(commonsense)[1]}
    new = {name: task.filter(lambda q: q.id not in asked).limit(NEW[name]) for name, task in held.items()}
    chosen, known = candidate(CONFIRMED, scored), scored[CULTURE].scores("sum")
    sets: dict[str, NeuronSet | None] = {"unchanged": None, CONFIRMED: chosen}
    sets |= {
        f"random {seed}": select_random(chosen, known, seed=seed, match="layer")
        for seed in range(RANDOM_SETS)
    }
    for name, neurons in sets.items():
        ask(model, folder / "confirm", new, name, (neurons, "zero"), scored[CULTURE].task)
    files = {name: folder / "confirm" / "answers" / f"{name}.parquet" for name in sets}
    results = {name: EvaluationResult.load(path) for name, path in files.items()}
    base, random = results.pop("unchanged"), [results[n] for n in results if n.startswith("random")]
    report(base, {CONFIRMED: results[CONFIRMED]}, random)
    say_texts(folder / "confirm")


def by_cluster(result: EvaluationResult, base: EvaluationResult, task: str) -> tuple[np.ndarray, np.ndarray]:
    """(points of P(answer) lost, questions) of each cluster."""
    mine, before = (r.table[r.table["task"] == task].set_index("id") for r in (result, base))
    lost = 100 * (before["p_answer"] - mine["p_answer"].loc[before.index])
    groups = lost.groupby(before["cluster"].to_numpy())
    return groups.sum().to_numpy(), groups.size().to_numpy()


def interval(parts: list[tuple[np.ndarray, np.ndarray]], value: Any) -> tuple[float, float, float]:
    """(value, low, high) of a function of each task's mean loss; clusters resampled, each task's own."""
    rng, means, drawn = np.random.default_rng(0), [], []
    for lost, n in parts:
        pick = rng.integers(len(lost), size=(DRAWS, len(lost)))
        drawn.append(lost[pick].sum(1) / n[pick].sum(1))
        means.append(lost.sum() / n.sum())
    low, high = np.percentile(value(*drawn), [2.5, 97.5])
    return float(value(*means)), float(low), float(high)


def table(folder: Path) -> None:
    """Prints what every setting that was asked costs, and what was asked in the stored study."""
    files = sorted((folder / "answers").glob("*.parquet"), key=lambda path: path.stat().st_mtime)
    results = {path.stem: EvaluationResult.load(path) for path in files}
    asked = next(iter(results.values()))

    def same(setting: str) -> EvaluationResult:
        return stored(setting).shared_with(asked)

    random = [same(f"random by layer {seed}") for seed in range(RANDOM_SETS)]
    report(same("unchanged"), {"culture-general": same("culture-general"), **results}, random)
    say_texts(folder)


def report(
    base: EvaluationResult, results: dict[str, EvaluationResult], random: list[EvaluationResult]
) -> None:
    """Prints what settings cost, beyond the random sets' mean."""
    tasks = ("blend", OTHER)
    off = {task: np.mean([by_cluster(r, base, task)[0] for r in random], 0) for task in tasks}
    print("unchanged", *(f"{100 * base.values(task).mean():.1f}" for task in tasks))
    for name, result in results.items():
        lost = [by_cluster(result, base, task) for task in tasks]
        beyond = [(mine - off[task], n) for task, (mine, n) in zip(tasks, lost)]
        right = " ".join(f"{100 * result.values(task).mean():.1f}" for task in tasks)
        print(
            f"{name} | accuracy {right} | lost {shown(lost[:1])}, {shown(lost[1:])} | beyond random"
            f" {shown(beyond[:1])}, {shown(beyond[1:])} | difference {shown(beyond, lambda b, c: b - c)}"
            f" | D {shown(beyond, lambda b, c: b - 2 * np.maximum(c, 0))}"
        )


def say_texts(folder: Path) -> None:
    """Prints each setting's perplexity of plain text."""
    losses = (folder / "answers").glob("*.json")
    texts = {path.stem: TextLoss(**json.loads(path.read_text())) for path in losses}
    for name, loss in texts.items():
        print(
            name, loss, "beyond unchanged: {:.3f} ({:.3f} to {:.3f})".format(*loss.beyond(texts["unchanged"]))
        )


def shown(parts: list[tuple[np.ndarray, np.ndarray]], value: Any = lambda mean: mean) -> str:
    return "{:.1f} ({:.1f} to {:.1f})".format(*interval(parts, value))


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Selections that hold tasks without culture against a neuron."
    )
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data-dir")
    parser.add_argument(
        "--found", type=int, default=128, help="questions of each task that neurons are found on"
    )
    parser.add_argument("--most", type=int, help="settings that are asked at most")
    parser.add_argument("--table", action="store_true", help="no model: print what is there")
    parser.add_argument("--confirm", action="store_true", help="one candidate on new questions")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.table:
        return table(given.folder)
    if given.model == "toy":
        return at_home(given.folder)
    tasks, held = questions(given.found, form="cloze", data_dir=given.data_dir)
    model = load_model(given.model, dtype="float32", device="cpu")
    scored = {name: matrix(model, task, given.folder / f"{name}.npz") for name, task in tasks.items()}
    if given.confirm:
        return confirm(model, given.folder, scored, given.data_dir)
    chosen = folds(scored)
    for name, row in chosen.items():
        print(f"{name:20}", *(f"{key} {value:.2f}" for key, value in row.items()), flush=True)
    best = max(chosen, key=lambda name: chosen[name]["criterion"])
    print("the folds choose:", best, flush=True)
    unchanged = given.folder / "answers" / "unchanged.json"
    if not unchanged.is_file():
        unchanged.parent.mkdir(exist_ok=True)
        loss = text_loss(model)
        unchanged.write_text(json.dumps({"nats": loss.nats, "tokens": loss.tokens}))
    for name, setting in list(settings(scored, best).items())[: given.most]:
        ask(model, given.folder, held, name, setting, tasks[CULTURE].limit(64))
    table(given.folder)


if __name__ == "__main__":
    main()
