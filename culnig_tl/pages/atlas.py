"""The atlas: a static site with a page for every selected neuron of a study, or of two side by side.

It opens from disk and needs no network. Every page is written whole or not at all; a run that was killed is
resumed by the next one, which replaces what is there. Files that the atlas did not write are neither
overwritten nor removed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from .. import io
from ..data.neurons import Site
from ..engine.checkpoint import Checkpoint
from ..errors import NeuronError, StudyError
from ..figures.theme import number
from ..figures.values import country_label
from ..study.config import GENERAL
from ..study.opened import OpenStudy, open_study, study_of
from ..study.study import Study
from . import page
from .closeups import BEST, Closeup, Key, Selected, alone_state, facts, look, reading_state

LARGEST = 60_000
"""Bytes of a page: where more would be needed, it shows fewer top questions, then fewer countries."""
STYLE, SCRIPT, DATA, LOCK, STATE = "atlas.css", "atlas.js", "neurons.js", "atlas.lock", "state"
_MARK = "/* culnig_tl atlas */\n"
"""First line of the atlas's style and scripts."""
_SHADES, _FAINTEST = 8, 0.02
"""Shades of a token; the share of the largest attribution under which a token has none."""
_PLAIN = 160
"""Characters of uncoloured text that a top question shows in one piece; the middle is left out."""
_COUNTRIES = (60, 30, 15)
"""Countries of a page, the fewer the less room there is."""
PLACES = ("neurons", "neurons-2")
"""Folders of neurons' pages: the second is that of a study whose model has another shape than the first's."""
Given = Study | OpenStudy | str | Path


def write_atlas(
    studies: Given | Mapping[str, Given],
    folder: str | Path,
    *,
    limit: int = 200,
    alone: int = 16,
    top: int | None = None,
    device: str = "auto",
    dtype: str = "auto",
    batch_size: int | str = "auto",
    data_dir: str | Path | None = None,
    progress: bool = True,
) -> Path:
    """Writes the atlas of a finished study, or of two side by side; returns its index.

    Two models of the same shape share a page per neuron, with both studies on it; of different shapes, each
    neuron's page is about its own study.

    Args:
        studies: a study, its folder, or two of them by name.
        folder: where the site goes.
        limit: questions that are read, of those that the neurons were found on.
        alone: questions on which each neuron is suppressed alone, of those that the study asked, spread over
            countries; 0: none.
        top: neurons per study, the strongest culture-general ones first; all selected ones by default.
        device, dtype, batch_size, data_dir: as in `load_model`, `question_scores` and `load_task`.

    Raises:
        StudyError: an unfinished study, more than two, no selected neurons, a model or questions that have
            changed, another run in the folder, a file there that the atlas did not write, or a link.
    """
    named = studies if isinstance(studies, Mapping) else {"": studies}
    if not 1 <= len(named) <= 2:
        raise StudyError(f"an atlas shows one study, or two side by side, not {len(named)}")
    for name, count, least in (("limit", limit, 1), ("alone", alone, 0), ("top", top, 1)):
        if count is not None and count < least:
            raise NeuronError(f"{name} must be at least {least}, not {count}")
    given = {name or study_of(study).config.model: study for name, study in named.items()}
    chosen = [Selected.of(name, study_of(study)) for name, study in given.items()]
    for selected in chosen:
        if not selected.sets:
            raise StudyError(f"the study of {selected.study.config.model} selected no neurons to show")
    folder = Path(folder)
    if folder.is_symlink():
        raise StudyError(f"{folder} is a link: give the folder that it leads to, {folder.resolve()}")
    groups = _grouped(chosen, top)
    names = ["index.html", STYLE, SCRIPT, DATA]
    names += [_file(number, key) for number, (_, keys) in enumerate(groups) for key in keys]
    with io.locked(io.inside(folder, LOCK), f"the atlas in {folder}"):
        for name in names:
            _check_own(io.inside(folder, name))
        states = {name: io.inside(folder, f"{STATE}/{io.file_name(name)}") for name in given}

        def looked(selected: Selected, keys: Sequence[Key]) -> Closeup:
            source = given[selected.name]
            study = source if isinstance(source, OpenStudy) else selected.study
            opened = open_study(study, device=device, dtype=dtype, data_dir=data_dir)
            how: dict[str, Any] = {"limit": limit, "alone": alone, "batch_size": batch_size}
            return look(selected, opened, keys, **how, state=states[selected.name], progress=progress)

        seen = [[looked(selected, keys) for selected in group] for group, keys in groups]
        _write(folder, seen)
        _tidy(folder, names, states.values())
    return folder / "index.html"


def _grouped(chosen: Sequence[Selected], top: int | None) -> list[tuple[list[Selected], list[Key]]]:
    """Studies whose models have the same neurons, with those that get a page, the first study's first."""
    together = len(chosen) == 1 or chosen[0].shape == chosen[1].shape
    groups = [list(chosen)] if together else [[selected] for selected in chosen]
    return [
        (group, list(dict.fromkeys(key for selected in group for key in list(selected.sets)[:top])))
        for group in groups
    ]


def _file(group: int, key: Key) -> str:
    """A neuron's page: its address depends on the neuron alone."""
    return f"{PLACES[group]}/{_address(key)}"


def _address(key: Key) -> str:
    """The same as seen from another neuron's page."""
    return f"{key[0]}-{key[1]}-{key[2]}.html"


def _check_own(path: Path) -> None:
    """Raises `StudyError` where somebody else's file would be overwritten."""
    if path.exists() and not (path.is_file() and _is_own(path)):
        raise StudyError(f"{path} is not of an atlas: move it away, or choose another folder")


def _is_own(path: Path) -> bool:
    if path.suffix == ".html":
        return io.is_own_page(path)
    with path.open("rb") as stream:
        return stream.read(len(_MARK)) == _MARK.encode()


def _tidy(folder: Path, names: Sequence[str], states: Iterable[Path]) -> None:
    """Removes states of passes that are done, half-written files of killed runs, and pages of neurons that
    an earlier atlas showed and this one does not; nothing of anybody else."""
    for state in states:
        for path in (reading_state(state), alone_state(state)):
            Checkpoint(path).remove()
    with suppress(OSError):  # missing, or something else is in it
        (folder / STATE).rmdir()
    wanted = {folder / name for name in names}
    for place in (folder, *(folder / name for name in PLACES)):
        for path in sorted(place.iterdir()) if place.is_dir() and not place.is_symlink() else ():
            stale = place != folder and path.suffix == ".html" and path not in wanted
            if io.written_as(path) in wanted or (stale and path.is_file() and _check_name(path)):
                path.unlink()


def _check_name(path: Path) -> bool:
    """Whether it is a neuron's page of an atlas."""
    named = re.fullmatch(r"[a-z]+\.[a-z]+-\d+-\d+\.html", path.name)
    return named is not None and not path.is_symlink() and _is_own(path)


# -------------------------------------------------------------------------------------------------- the pages


def _write(folder: Path, seen: Sequence[Sequence[Closeup]]) -> None:
    """Style and script first, the index last."""
    for name in (STYLE, SCRIPT):
        io.write(io.inside(folder, name), (_MARK + page.render(f"{name}.jinja")).encode())
    rows: list[dict[str, Any]] = []
    for group, closeups in enumerate(seen):
        keys = closeups[0].keys
        beside = [None, *map(_address, keys), None]
        for place, key in enumerate(keys):
            around = {"previous": beside[place], "following": beside[place + 2]}
            io.write_page(io.inside(folder, _file(group, key)), _neuron_page(closeups, key, around))
            rows.append(_row(group, closeups, key))
    table = json.dumps(page.columns([list(row.values()) for row in rows], list(rows[0])))
    io.write(io.inside(folder, DATA), f"{_MARK}window.ATLAS = {table};\n".encode())
    io.write_page(io.inside(folder, "index.html"), _index(seen, rows))


def _neuron_page(closeups: Sequence[Closeup], key: Key, around: Mapping[str, str | None]) -> str:
    """A neuron's page, with as much as there is room for."""
    text = ""
    most = BEST if len(closeups) == 1 else BEST - 2
    sizes = [(count, _COUNTRIES[0]) for count in range(most, 0, -1)]
    for count, countries in sizes + [(1, fewer) for fewer in _COUNTRIES[1:]]:
        sides = [
            {"number": number, **_side(closeup, key, count, countries)}
            for number, closeup in enumerate(closeups, 1)
        ]
        text = page.render(
            "neuron.html.jinja",
            title=_name(key),
            key=key,
            sides=sides,
            two=len(sides) > 1,
            **around,
        )
        if len(text.encode()) < LARGEST - 100:  # the mark of an own page is still to come
            return text
    return text


def _name(key: Key) -> str:
    return f"{key[0]}, layer {key[1]}, neuron {key[2]}"


def _side(closeup: Closeup, key: Key, count: int, countries: int) -> dict[str, Any]:
    """What a page shows of one study."""
    selected, site = closeup.selected, Site(key[0])
    pool, score = selected.pools[site.pool], selected.score(key)
    below = int(np.searchsorted(pool, score, side="left"))
    rank = 1 + len(pool) - int(np.searchsorted(pool, score, side="right"))
    cost = closeup.cost(key)
    return {
        "name": selected.name,
        "model": selected.study.config.model,
        "sets": selected.sets.get(key, []),
        "score": number(score, ".3g"),
        "rank": f"{rank:,}",
        "size": f"{len(pool):,}",
        "pool": "MLP" if site.pool == "mlp" else "attention",
        "quantile": _percent(below, len(pool)),
        "cost": None if cost is None else _points(cost[0]),
        "error": None if cost is None or np.isnan(cost[1]) else f"{cost[1]:.2g}",
        "histogram": selected.histograms[site.pool].draw(score),
        "map": selected.map.draw(key[0], key[1]),
        "here": sum(k[:2] == key[:2] for k in selected.sets),
        "selected": len(selected.sets),
        "questions": _questions(closeup, key, count),
        "countries": _countries(closeup, key, countries),
        "words": _words(closeup, key),
        "gated": closeup.gated and site.pool == "mlp",
        "neighbours": [
            {"name": _name(other), "file": _address(other), "r": number(r, ".2f")}
            for other, r in closeup.neighbours[key]
        ],
        "control": "control" in selected.study.scores,
        "cloze": selected.study.form == "cloze",
        "site": key[0],
        **facts(closeup),
    }


def _percent(below: int, size: int) -> str:
    """A share just under 100% is not rounded up to it."""
    share = 100 * below / size
    return f"{min(share, 99.99):.2f}" if below < size else "100"


def _points(value: float) -> str:
    return number(value, ".2f" if abs(value) < 10 else ".1f")


def _questions(closeup: Closeup, key: Key, count: int) -> list[dict[str, Any]]:
    """The neuron's top questions; those on which it scores nothing above 0 are none."""
    column, found = closeup.column[key], []
    for place in range(count):
        kept = closeup.tokens(key, place)
        if kept is None:
            break
        at, parts = kept
        weighted = float(closeup.questions.weighted[at, column])
        if weighted <= 0:
            break
        question = closeup.questions.task[at]
        right = question.options.index(question.answer)
        answer = question.texts[right] if question.form == "cloze" else question.answer
        every = [value for _, tokens in parts for _, value in tokens]
        lines: list[dict[str, Any]] = [
            {"name": name, "right": name == f"option {question.answer}", "spans": _spans(tokens, every)}
            for name, tokens in parts
        ]
        found.append(
            {
                "country": country_label(question.country) if question.country else "",
                "answer": answer,
                "p": f"{closeup.questions.p_answer[at]:.3f}",
                "score": number(weighted, ".3g"),
                "lines": lines,
                "opened": any(line["name"].endswith("control") and _has_peak(line) for line in lines),
            }
        )
    return found


def _has_peak(line: Mapping[str, Any]) -> bool:
    """Whether the framed token is in this part of a prompt."""
    return any("peak" in kind for kind, _, _ in line["spans"])


def _spans(tokens: Sequence[tuple[str, float]], every: Sequence[float]) -> list[tuple[str, str, str]]:
    """(class, text, value) of a prompt's pieces: coloured tokens, and what is between them in one piece."""
    reach, peak = max(map(abs, every)) or 1.0, max(every)
    spans: list[tuple[str, str, str]] = []
    for text, value in tokens:
        share = abs(value) / reach
        if share < _FAINTEST:
            if spans and not spans[-1][0]:
                spans[-1] = ("", spans[-1][1] + text, "")
            else:
                spans.append(("", text, ""))
            continue
        shade = f"{'w' if value > 0 else 'c'}{max(1, round(_SHADES * share))}"
        shown = text.replace("\n", "↵\n") if not text.strip() else text
        spans.append((f"{shade} peak" if value == peak else shade, shown, number(value, "+.2g")))
    half = _PLAIN // 2
    return [
        (kind, text if kind or len(text) <= _PLAIN + 20 else f"{text[:half]} … {text[-half:]}", value)
        for kind, text, value in spans
    ]


def _countries(closeup: Closeup, key: Key, most: int) -> dict[str, Any] | None:
    """Score and cost by country, the highest scores first; None where nothing is known by country."""
    scores = {name: float(values[closeup.place[key]]) for name, values in closeup.by_country.items()}
    costs = closeup.costs(key)
    names = list(dict.fromkeys([*scores, *costs]))
    if len(names) < 2:
        return None
    names.sort(key=lambda name: (-scores.get(name, -np.inf), -costs.get(name, (0.0, 0))[0], name))
    far = max((abs(value) for value in scores.values()), default=0.0) or 1.0
    deep = max((abs(cost) for cost, _ in costs.values()), default=0.0) or 1.0
    rows = []
    for name in names[:most]:
        score, cost = scores.get(name), costs.get(name)
        rows.append(
            {
                "name": country_label(name),
                "score": None if score is None else number(score, ".3g"),
                "bar": 0 if score is None else round(100 * abs(score) / far),
                "below": score is not None and score < 0,
                "cost": None if cost is None else _points(cost[0]),
                "n": 0 if cost is None else cost[1],
                "loss": 0 if cost is None else round(100 * abs(cost[0]) / deep),
                "gain": cost is not None and cost[0] < 0,
            }
        )
    return {"rows": rows, "scored": bool(scores), "asked": bool(costs), "left": len(names) - len(rows)}


def _words(closeup: Closeup, key: Key) -> dict[str, list[tuple[str, str]]] | None:
    """The words that the neuron's output raises and lowers most; None of one that writes nothing."""
    if key not in closeup.promoted:
        return None
    table = closeup.promoted[key]
    pairs = list(zip(table["token"].astype(str), table["logit"].astype(float)))
    shown = [(token.replace("\n", "↵"), value) for token, value in pairs]
    return {
        "up": [(token, number(value, "+.2f")) for token, value in shown if value > 0],
        "down": [(token, number(value, "+.2f")) for token, value in reversed(shown) if value < 0],
    }


# -------------------------------------------------------------------------------------------------- the index


def _row(group: int, closeups: Sequence[Closeup], key: Key) -> dict[str, Any]:
    """A neuron in the index: what is shown, sorted by and searched."""
    first = closeups[0]
    words = [word.strip() for c in closeups if (found := _words(c, key)) for word, _ in found["up"][:4]]
    stems, peaks = [], []
    for closeup in closeups:
        for place in range(3):
            kept = closeup.tokens(key, place)
            if kept is not None:
                question = closeup.questions.task[kept[0]]
                stems.append(" ".join((question.stem or question.prompt).split())[:100])
                at = closeup.questions.tokens[kept[0], closeup.column[key]]
                peaks.append(closeup.texts[kept[0]][at])
    several = len(closeups) > 1
    sets = [
        f"{c.selected.name}: {s}" if several else s for c in closeups for s in c.selected.sets.get(key, [])
    ]
    row: dict[str, Any] = {
        "page": _file(group, key),
        "study": "" if several else first.selected.name,
        "site": key[0],
        "layer": key[1],
        "neuron": key[2],
        "sets": sets,
    }
    for place in range(2):
        closeup = closeups[place] if place < len(closeups) else None
        cost = None if closeup is None else closeup.cost(key)
        row[f"score{place}"] = None if closeup is None else float(f"{closeup.selected.score(key):.4g}")
        row[f"cost{place}"] = None if cost is None else float(f"{cost[0]:.4g}")
    row["acts"] = list(dict.fromkeys(text.strip() for text in peaks if text.strip()))[:4]
    row["words"] = list(dict.fromkeys(word for word in words if word))[:6]
    row["text"] = list(dict.fromkeys(stems))
    return row


def _index(seen: Sequence[Sequence[Closeup]], rows: Sequence[Mapping[str, Any]]) -> str:
    closeups = [closeup for group in seen for closeup in group]
    sets = list(dict.fromkeys(name for row in rows for name in row["sets"]))
    sets.sort(key=lambda name: (GENERAL not in name, name))
    return page.render(
        "atlas.html.jinja",
        title="Atlas of culture neurons",
        studies=[
            {
                "name": c.selected.name,
                "model": c.selected.study.config.model,
                "selected": len(c.selected.sets),
                "shown": len(c.keys),
                "map": c.selected.map.draw(),
                "cloze": c.selected.study.form == "cloze",
                **facts(c),
            }
            for c in closeups
        ],
        together=len(seen[0]) > 1,
        apart=len(seen) > 1,
        rows=rows[: page.ROWS * 2],
        count=len(rows),
        size=page.ROWS * 2,
        sites=list(dict.fromkeys(row["site"] for row in rows)),
        layers=sorted({row["layer"] for row in rows}),
        sets=sets,
        number=number,
    )
