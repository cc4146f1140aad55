"""What a workbench explores, as plain data: scores, sets, and on demand the model and its questions."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..data.neurons import NeuronSet, Provenance, Site
from ..data.scores import NO_COUNTRY, NeuronScores
from ..defaults import TOY
from ..engine.models import HookedModel, describe, load_model
from ..errors import ModelError, NeuronError, ScoreError, StudyError, TaskError
from ..figures.values import country_label, per_cluster
from ..names import which
from ..study.config import GENERAL, RIVAL, SPECIFIC, StudyConfig, config_from
from ..study.folder import read_record
from ..study.stored import FOLDER
from ..study.study import Study
from ..tasks import Question, Task, load_task
from ..tasks.question import Form, Normalise
from ..tasks.registry import TASKS
from .reading import Key, Questions, Reader
from .twin import twin

ALL = "all scored neurons"
SELECTION = "my selection"
FEW = 10_000
"""A model of up to so many neurons has them all read at once; of a larger one only the chosen set's are."""
EXAMPLES = 12
"""Questions offered before a card names better ones."""


MEANINGS = {
    GENERAL: "among the highest scores of all countries together, and not needed for reading",
    SPECIFIC: "among the highest scores of these countries, and higher there than elsewhere",
    RIVAL: "found in the same way on {task}, which does not ask about culture",
}
"""Kind of a set -> what it says of a neuron to be in it."""


@dataclass(frozen=True)
class Choice:
    """What the heatmap shows; None is all of it."""

    name: str
    """Of the set."""
    country: str | None = None
    site: Site | None = None
    layer: int | None = None


@dataclass(frozen=True)
class _Known:
    """The parts of a study that are explored: no answers."""

    config: StudyConfig
    scores: dict[str, NeuronScores]
    neurons: dict[str, NeuronSet]


def _of_study(study: Study) -> _Known:
    return _Known(study.config, study.scores, study.neurons)


def _of_folder(name: str | Path) -> _Known:
    """Of a study's folder, or one that comes with the package: its answers, which take longest, are not read,
    and need not be complete. Raises `StudyError` where no neuron is scored there."""
    folder = FOLDER / name if isinstance(name, str) and (FOLDER / name).is_dir() else Path(name)
    record = read_record(folder)
    if record is None:
        raise StudyError(f"{name} holds no study: no study.json in it")
    scores = {
        part: NeuronScores.load(path)
        for part in ("neuron", "control")
        if (path := folder / "scores" / f"{part}.safetensors").is_file()
    }
    if "neuron" not in scores:
        raise StudyError(f"the study in {name} has not scored its neurons yet: run it again with --resume")
    sets = {path.stem: NeuronSet.load(path) for path in sorted((folder / "neurons").glob("*.parquet"))}
    return _Known(replace(config_from(record["config"]), data_dir=None), scores, sets)


@dataclass
class Source:
    """Scores, the sets to choose from, and where the model and the questions come from."""

    scores: NeuronScores
    control: NeuronScores | None = None
    sets: dict[str, NeuronSet] = field(default_factory=dict)
    given_model: HookedModel | None = None
    given_task: Task | None = None
    data_dir: str | None = None
    wordings: str | None = None
    limit: int | None = None
    """Of the study's questions."""
    questions: int = 200
    rival_task: str = ""
    """What the rival's neurons were found on."""
    _loading: Any = field(default_factory=threading.Lock)
    """Held while questions are loaded."""
    _by_country: dict[str | None, dict[Site, np.ndarray]] = field(default_factory=dict)
    _readers: list[Reader] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        given: Study | NeuronScores | str | Path,
        *,
        control: NeuronScores | None = None,
        model: HookedModel | None = None,
        neurons: NeuronSet | Mapping[str, NeuronSet] | None = None,
        task: Task | None = None,
        questions: int = 200,
    ) -> Source:
        """Of a study, its folder, or scores; sets that are given as well come first. Raises as `explore`
        does."""
        if questions < 1:
            raise TaskError(f"questions must be at least 1, not {questions}")
        extra = {neurons.provenance.kind: neurons} if isinstance(neurons, NeuronSet) else dict(neurons or {})
        if isinstance(given, NeuronScores):
            source = cls(given, control, extra)
        elif control is not None:
            raise ScoreError("control= belongs to scores: a study has its own")
        else:
            known = _of_folder(given) if isinstance(given, (str, Path)) else _of_study(given)
            first = [kind for kind in (GENERAL, SPECIFIC, RIVAL) if kind in known.neurons]
            sets = {kind: known.neurons[kind] for kind in first} | known.neurons
            source = cls(known.scores["neuron"], known.scores.get("control"), {**extra, **sets})
            config = known.config
            source.data_dir, source.limit, source.wordings = config.data_dir, config.limit, config.wordings
            source.rival_task = config.rival_task or ""
        if source.control is not None:
            per_cluster(source.scores, source.control)  # raises where they do not belong together
        source.given_model, source.given_task, source.questions = model, task, questions
        for name in (ALL, SELECTION):
            if name in source.sets:
                raise NeuronError(f"a set cannot be called {name!r}: the view uses that name itself")
        for neurons in source.sets.values():
            source.check(neurons)
        if model is not None:
            source.check_model(model)
        if task is not None:
            source.check_task(task)
        return source

    # ---------------------------------------------------------------------------------------- scores and sets

    @property
    def model_name(self) -> str:
        return str(self.scores.metadata.get("model", "?"))

    @property
    def title(self) -> str:
        return f"{self.model_name}: {self.scored}"

    @property
    def scored(self) -> str:
        return f"scores on {self.scores.task}{' minus control' if self.control is not None else ''}"

    @property
    def size(self) -> int:
        """Neurons that were scored."""
        return self.scores.layers * sum(self.scores.widths.values())

    @property
    def about(self) -> str:
        """The size of what was scored, in words."""
        where = f", {len(self.countries)} countries" if self.countries else ""
        return (
            f"{self.scores.layers} layers, {self.size:,} neurons "
            f"scored on {sum(self.scores.questions):,} questions in {self.scores.clusters:,} clusters{where}"
        )

    @property
    def countries(self) -> tuple[str, ...]:
        return self.scores.countries if self.scores.countries != (NO_COUNTRY,) else ()

    def check(self, neurons: NeuronSet) -> None:
        """Raises `NeuronError` where a neuron lies outside the scores."""
        for (site, layer), index in neurons.indices.items():
            width = self.scores.widths.get(site)
            if layer >= self.scores.layers or (width is not None and index[-1] >= width):
                wide = f", {width:,} neurons per layer at {site}" if width is not None else ""
                raise NeuronError(
                    f"neuron ({site}, {layer}, {index[-1]}) lies outside the scores of {self.model_name}: "
                    f"{self.scores.layers} layers{wide}"
                )

    def check_country(self, country: str | None) -> str | None:
        """The country itself. Raises `ScoreError` where it has no scores."""
        if country is not None and country not in self.scores.countries:
            raise ScoreError(f"no scores of {country!r}{which(country, self.countries, 'countries are')}")
        return country

    def check_site(self, site: str | None) -> str | None:
        """The site itself. Raises `NeuronError` where it has no scores."""
        if site is not None and Site.parse(site) not in self.scores.arrays:
            raise NeuronError(f"no scores of {site}: sites are {', '.join(map(str, self.scores.sites))}")
        return site

    def check_layer(self, layer: int | None) -> int | None:
        """The layer itself. Raises `NeuronError` where the model has none of that number."""
        if layer is not None and not 0 <= layer < self.scores.layers:
            raise NeuronError(f"no layer {layer}: layers are 0 to {self.scores.layers - 1}")
        return layer

    def check_neuron(self, key: tuple[Any, Any, Any]) -> Key:
        """(site, layer, neuron) as plain values. Raises `NeuronError` where it has no score."""
        site, layer, neuron = Site.parse(key[0]), int(key[1]), int(key[2])
        width = self.scores.widths.get(site, 0)
        if not (0 <= layer < self.scores.layers and 0 <= neuron < width):
            have = ", ".join(f"{s} 0 to {w - 1}" for s, w in self.scores.widths.items())
            raise NeuronError(
                f"no scores of neuron ({site}, {layer}, {neuron}): layers are 0 to {self.scores.layers - 1}, "
                f"neurons {have}"
            )
        return site.value, layer, neuron

    def values(self, country: str | None) -> dict[Site, np.ndarray]:
        """[layer, neuron] per site: score per cluster, control subtracted, of one country or of all."""
        if country not in self._by_country:
            self._by_country[country] = per_cluster(self.scores, self.control, country=country)
        return self._by_country[country]

    def neurons_of(self, choice: Choice, selection: NeuronSet) -> NeuronSet:
        """The set's neurons at the chosen country, site and layer, each once, with the scores of `values`.

        Raises `NeuronError` for `ALL`: that is the whole model and not a set.
        """
        if choice.name == ALL:
            raise NeuronError(
                "all scored neurons are not a set to ablate: choose a set, or pick neurons one by one"
            )
        neurons = selection if choice.name == SELECTION else self.sets[choice.name]
        country = choice.country if choice.country in neurons.countries else None
        table = neurons.table
        keep = ~table.duplicated(["site", "layer", "neuron"]).to_numpy()
        if neurons.countries and choice.country is not None:
            keep = (table["country"] == choice.country).to_numpy()
        if choice.site is not None:
            keep &= (table["site"] == choice.site.value).to_numpy()
        if choice.layer is not None:
            keep &= (table["layer"] == choice.layer).to_numpy()
        sites, layers, index = (table[column].to_numpy()[keep] for column in ("site", "layer", "neuron"))
        scores = np.full(len(sites), np.nan, dtype=np.float32)
        for site, array in self.values(choice.country).items():
            here = sites == site.value
            scores[here] = array[layers[here], index[here]]
        table = pd.DataFrame({"site": sites, "layer": layers, "neuron": index, "score": scores})
        return self._set(table, choice.name + (f": {country}" if country else ""), neurons.provenance)

    def nothing(self) -> NeuronSet:
        """The empty set of this model."""
        return self._set(
            pd.DataFrame({"site": [], "layer": [], "neuron": [], "score": np.empty(0, np.float32)})
        )

    def single(self, key: Key) -> NeuronSet:
        """The set of one neuron, with its score over all countries."""
        score = self.values(None)[Site(key[0])][key[1], [key[2]]]
        return self._set(pd.DataFrame({"site": key[0], "layer": key[1], "neuron": key[2], "score": score}))

    def _set(self, table: pd.DataFrame, kind: str = SELECTION, known: Provenance | None = None) -> NeuronSet:
        """A set of this model's neurons; the model and versions of `known` are kept."""
        known = known or Provenance(model=self.model_name, revision=self.scores.metadata.get("revision"))
        where = Provenance(
            kind, known.model, known.revision, layers=self.scores.layers, version=known.version
        )
        pool = {site.value: width for site, width in self.scores.widths.items()}
        return NeuronSet(table, replace(where, pool=pool))

    def as_selection(self, neurons: NeuronSet) -> NeuronSet:
        """The same neurons: one of the sets as it is, others under the name of the view's selection."""
        for known in self.sets.values():
            if neurons == known and not known.countries:
                return known
        return NeuronSet(neurons.table, replace(neurons.provenance, kind=SELECTION))

    def sets_with(self, key: Key) -> list[str]:
        """Names of the sets that hold a neuron; random ones left out."""
        site, layer, neuron = Site.parse(key[0]), key[1], key[2]
        sets = {name: neurons for name, neurons in self.sets.items() if not name.startswith("random")}
        return [name for name, neurons in sets.items() if neuron in neurons.indices.get((site, layer), ())]

    def tags(self, key: Key) -> dict[str, str]:
        """The sets that hold a neuron (of a country-specific one with the countries) -> what that says."""
        tags = {}
        for name in self.sets_with(key):
            neurons = self.sets[name]
            kind, countries = neurons.provenance.kind, neurons.countries
            if countries:
                table = neurons.table
                rows = table.loc[(table["site"] == key[0]) & (table["layer"] == key[1])]
                mine = rows.loc[rows["neuron"] == key[2], "country"]
                name += f": {', '.join(country_label(str(country)) for country in mine)}"
            tags[name] = MEANINGS.get(kind, "a set that this view was given").format(
                task=self.rival_task or "another task"
            )
        return tags

    def country_scores(self, key: Key) -> dict[str, float]:
        """Country -> the neuron's score per cluster, control subtracted; the highest first."""
        site, layer, neuron = Site.parse(key[0]), key[1], key[2]
        found = {name: float(self.values(name)[site][layer, neuron]) for name in self.scores.countries}
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def rank(self, key: Key) -> tuple[int, int, float]:
        """(rank, size, score) among the neurons of the pool, all countries together."""
        site, layer, neuron = Site.parse(key[0]), key[1], key[2]
        values = self.values(None)
        mine = float(values[site][layer, neuron])
        pool = [array for s, array in values.items() if s.pool == site.pool]
        return 1 + sum(int((array > mine).sum()) for array in pool), sum(array.size for array in pool), mine

    # ------------------------------------------------------------------------------------ model and questions

    def check_task(self, task: Task) -> None:
        """Raises `TaskError` for questions in another form than those that were scored."""
        if len(task) and task.form != self.form:
            raise TaskError(
                f"the scores are of questions in the form {self.form!r}, {task.name} is in {task.form!r}: "
                f"load_task(..., form={self.form!r})"
            )

    def check_model(self, model: HookedModel) -> None:
        """Raises `ModelError` for a model of another shape than the scores."""
        info = describe(model)
        differing = [s for s, width in self.scores.widths.items() if info.widths.get(s) != width]
        if info.layers != self.scores.layers or differing:
            raise ModelError(
                f"the scores are of {self.model_name} ({self.scores.layers} layers), the model is {info}"
            )

    @cached_property
    def model(self) -> HookedModel:
        """The view's own copy of the model, on the same weights. Raises `ModelError` where none was given."""
        model = self.given_model
        if model is None:
            if self.model_name != TOY:
                raise ModelError(f"this needs the model: {self.how_to_load}")
            model = load_model(TOY)
            self.check_model(model)
        return twin(model) or model

    @property
    def has_model(self) -> bool:
        """Whether the model is at hand, or would be on demand."""
        return self.given_model is not None or self.model_name == TOY

    @property
    def how_to_load(self) -> str:
        """What to write where the model is missing."""
        return f"explore(..., model=load_model({self.model_name!r}))"

    @property
    def loaded(self) -> bool:
        """Whether the model has been loaded and copied."""
        return "model" in self.__dict__

    @property
    def model_sites(self) -> tuple[Site, ...]:
        """Sites that the model has, scored or not."""
        return tuple(describe(self.model).widths)

    def caution_of_model(self) -> str:
        """What the user should know about the model, which is loaded for it; blank where all is well."""
        scored, here = self.scores.metadata.get("revision"), describe(self.model).revision
        if scored and here and scored != here:
            return (
                f"the scores are of revision {scored} of {self.model_name}, the model is of {here}: "
                "they may not agree"
            )
        return ""

    @property
    def _task_name(self) -> str:
        return self.scores.task.partition(":")[0]

    @property
    def form(self) -> Form:
        """How questions are asked: as they were when the neurons were scored."""
        return self.scores.metadata.get("form", "letters")

    @property
    def normalise(self) -> Normalise:
        """What P of a cloze question's options is made of: as it was when the neurons were scored."""
        return self.scores.metadata.get("normalise", "unconditional")

    def as_scored(self, question: Question) -> Question:
        """A cloze question, asked as the neurons were scored; itself where it is."""
        chat_template = bool(self.scores.metadata.get("chat_template", False))
        if (question.normalise, question.chat_template) == (self.normalise, chat_template):
            return question
        return replace(question, normalise=self.normalise, chat_template=chat_template)

    @property
    def _asked_as(self) -> dict[str, Any]:
        """What `load_task` is given so that questions are asked as they were when the neurons were scored."""
        chat_template = self.scores.metadata.get("chat_template", False)
        return {"form": self.form, "chat_template": chat_template, "wordings": self.wordings}

    @cached_property
    def _whole(self) -> Task:
        """The task that the scores come from, as it was given or by its name."""
        if self.given_task is not None:
            return self.given_task
        try:
            return load_task(self._task_name, data_dir=self.data_dir, **self._asked_as)
        except TaskError as error:
            raise TaskError(
                f"the questions are missing: explore(..., task=load_task(...)); {error}"
            ) from error

    @property
    def at_hand(self) -> bool:
        """Whether the questions are loaded, or come with the package: nothing has to be fetched for them."""
        name = self._task_name
        known = name in TASKS and TASKS[name].source == "package"
        return self.given_task is not None or "_whole" in self.__dict__ or known

    @cached_property
    def task(self) -> Task:
        """The questions that cards show. Raises `TaskError` where the task cannot be loaded by its name."""
        with self._loading:
            task = self._whole
        if self.given_task is None and any(q.split == "neuron" for q in task):
            task = task.neuron_split().limit(self.limit)
        if not len(task):
            raise TaskError(f"task {task.name!r} holds no question")
        return task.normalised(self.normalise).limit(self.questions)

    @cached_property
    def examples(self) -> tuple[Question, ...]:
        """A few questions to start with. Raises `TaskError` where the task cannot be loaded by its name."""
        with self._loading:
            task = self._whole
        if any(q.split == "test" for q in task):
            task = task.test_split()
        return tuple(task.normalised(self.normalise).limit(EXAMPLES))

    @cached_property
    def asked(self) -> Questions:
        """The questions that cards show, as the model takes them."""
        return Questions(self.model, self.task)

    @property
    def ready(self) -> bool:
        """Whether the model and the questions are."""
        return "asked" in self.__dict__

    @property
    def one_row(self) -> bool | None:
        """Whether the options of a cloze question may stand in one row of this model; None where that is not
        known."""
        return getattr(self.asked.prompts[0], "one_row", None) if self.ready else None

    def get_ready(self) -> Questions:
        """Loads what is not loaded yet. Raises as `model` and `task` do."""
        return self.asked

    def reader(self, key: Key, choice: Choice, selection: NeuronSet) -> Reader:
        """What reads questions for a neuron, and for the others that are read with it; kept."""
        for reader in self._readers:
            if key in reader:
                return reader
        keys: Iterable[Key] = [key]
        if self.size <= FEW:
            layers, widths = range(self.scores.layers), self.scores.widths
            keys = [
                (s.value, layer, i) for s, width in widths.items() for layer in layers for i in range(width)
            ]
        elif choice.name != ALL and key in (chosen := self.neurons_of(Choice(choice.name), selection)).keys():
            keys = sorted(
                chosen.keys() - {known for reader in self._readers for known in reader.neurons.keys()}
            )
        self._readers.append(Reader(self.asked, NeuronSet.from_indices(keys)))
        return self._readers[-1]
