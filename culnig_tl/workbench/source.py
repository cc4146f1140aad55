"""What a workbench explores, as plain data: scores, sets, and on demand the model and its questions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from ..data.neurons import NeuronSet, Provenance, Site
from ..data.scores import NO_COUNTRY, NeuronScores
from ..defaults import TOY
from ..engine.models import describe, load_model
from ..errors import ModelError, NeuronError, ScoreError, TaskError
from ..figures.values import per_cluster
from ..study.study import Study
from ..tasks import Question, Task, load_task
from ..tasks.registry import TASKS
from .reading import Key, Reading
from .twin import twin

ALL = "all scored neurons"
SELECTION = "my selection"
FEW = 10_000
"""Neurons of a model that are all read at once; of a larger one those of the chosen set are."""
EXAMPLES = 12
"""Questions offered before a card names better ones."""


@dataclass(frozen=True)
class Choice:
    """What the heatmap shows; None is all of it."""

    name: str
    """Of the set."""
    country: str | None = None
    site: Site | None = None
    layer: int | None = None


@dataclass
class Source:
    """Scores, the sets to choose from, and how to come by the model and the questions."""

    scores: NeuronScores
    control: NeuronScores | None = None
    sets: dict[str, NeuronSet] = field(default_factory=dict)
    given_model: Any = None
    given_task: Task | None = None
    data_dir: str | None = None
    limit: int | None = None
    """Of the study's questions."""
    questions: int = 200
    _by_country: dict[str | None, dict[Site, np.ndarray]] = field(default_factory=dict)
    _readings: list[Reading] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        given: Study | NeuronScores,
        *,
        model: Any = None,
        neurons: NeuronSet | Mapping[str, NeuronSet] | None = None,
        task: Task | None = None,
        questions: int = 200,
    ) -> Source:
        """Of a study or scores; sets that are given besides come first. Raises as `explore` does."""
        if questions < 1:
            raise TaskError(f"questions must be a number from 1, not {questions}")
        extra = {neurons.provenance.kind: neurons} if isinstance(neurons, NeuronSet) else dict(neurons or {})
        if isinstance(given, Study):
            study, scores = given, given.scores["neuron"]
            source = cls(scores, study.scores.get("control"), {**extra, **study.neurons})
            source.data_dir, source.limit = study.config.data_dir, study.config.limit
        else:
            source = cls(given, None, extra)
        source.given_model, source.given_task, source.questions = model, task, questions
        for name in (ALL, SELECTION):
            if name in source.sets:
                raise NeuronError(f"a set cannot be called {name!r}: the view uses that name itself")
        for neurons in source.sets.values():
            source.check(neurons)
        if model is not None:
            source.check_model(model)
        return source

    # ------------------------------------------------------------------------------------------- scores and sets

    @property
    def model_name(self) -> str:
        return str(self.scores.metadata.get("model", "?"))

    @property
    def title(self) -> str:
        return f"{self.model_name}: scores on {self.scores.task}{' minus control' if self.control is not None else ''}"

    @property
    def about(self) -> str:
        """The size of what was scored, in words."""
        n, neurons = sum(self.scores.questions), self.scores.layers * sum(self.scores.widths.values())
        where = f", {len(self.countries)} countries" if self.countries else ""
        return f"{self.scores.layers} layers, {neurons:,} neurons scored on {n:,} questions in {self.scores.clusters:,} clusters{where}"

    @property
    def countries(self) -> tuple[str, ...]:
        return self.scores.countries if self.scores.countries != (NO_COUNTRY,) else ()

    def check(self, neurons: NeuronSet) -> None:
        """Raises `NeuronError` where a neuron lies outside the scores."""
        for (site, layer), index in neurons.indices.items():
            width = self.scores.widths.get(site)
            if layer >= self.scores.layers or (width is not None and index[-1] >= width):
                raise NeuronError(
                    f"neuron ({site}, {layer}, {index[-1]}) lies outside the scores of {self.model_name}: {self.scores.layers} layers"
                    + (f", {width:,} neurons a layer at {site}" if width is not None else "")
                )

    def check_neuron(self, key: tuple[Any, Any, Any]) -> Key:
        """(site, layer, neuron), of a table's row too, as plain values. Raises `NeuronError` where it has no score."""
        site, layer, neuron = Site.parse(key[0]), int(key[1]), int(key[2])
        width = self.scores.widths.get(site, 0)
        if not (0 <= layer < self.scores.layers and 0 <= neuron < width):
            have = ", ".join(f"{s} 0 to {w - 1}" for s, w in self.scores.widths.items())
            raise NeuronError(
                f"no scores of neuron ({site}, {layer}, {neuron}): layers are 0 to {self.scores.layers - 1}, neurons of {have}"
            )
        return site.value, layer, neuron

    def values(self, country: str | None) -> dict[Site, np.ndarray]:
        """[layer, neuron] a site: the score a cluster, control subtracted, of one country or of all together."""
        if country not in self._by_country:
            self._by_country[country] = per_cluster(self.scores, self.control, country=country)
        return self._by_country[country]

    def neurons_of(self, choice: Choice, selection: NeuronSet) -> NeuronSet:
        """The set's neurons at the chosen country, site and layer, each once, with the scores of `values`.

        Raises `NeuronError` for `ALL`: that is the model, no set.
        """
        if choice.name == ALL:
            raise NeuronError(
                "all scored neurons are no set to switch off: choose a set, or pick neurons one by one"
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
        kind = choice.name + (f": {country}" if country else "")
        known = neurons.provenance
        pool = {site.value: width for site, width in self.scores.widths.items()}
        return NeuronSet(
            pd.DataFrame({"site": sites, "layer": layers, "neuron": index, "score": scores}),
            Provenance(
                kind=kind,
                model=known.model,
                revision=known.revision,
                pool=pool,
                layers=self.scores.layers,
                version=known.version,
            ),
        )

    def nothing(self) -> NeuronSet:
        """The empty set of this model."""
        return self._made([], [])

    def single(self, key: Key) -> NeuronSet:
        """The set of one neuron, with its score over all countries."""
        return self._made([key], [float(self.values(None)[Site(key[0])][key[1], key[2]])])

    def _made(self, keys: list[Key], scores: list[float]) -> NeuronSet:
        table = pd.DataFrame(keys, columns=["site", "layer", "neuron"]).assign(
            score=np.array(scores, dtype=np.float32)
        )
        known = self.scores.metadata
        pool = {site.value: width for site, width in self.scores.widths.items()}
        where = Provenance(
            kind=SELECTION,
            model=self.model_name,
            revision=known.get("revision"),
            pool=pool,
            layers=self.scores.layers,
        )
        return NeuronSet(table, where)

    def as_selection(self, neurons: NeuronSet) -> NeuronSet:
        """The same neurons: a whole set of the study's with all that is known of it, others under the name of the view's selection."""
        for known in self.sets.values():
            if neurons == known and not known.countries:
                return known
        return NeuronSet(neurons.table, replace(neurons.provenance, kind=SELECTION))

    def sets_with(self, key: Key) -> list[str]:
        """Names of the sets that hold a neuron; random ones left out."""
        site, layer, neuron = Site.parse(key[0]), key[1], key[2]
        return [
            name
            for name, neurons in self.sets.items()
            if not name.startswith("random") and neuron in neurons.indices.get((site, layer), np.empty(0))
        ]

    def country_scores(self, key: Key) -> dict[str, float]:
        """Country -> the neuron's score a cluster, control subtracted."""
        site, layer, neuron = Site.parse(key[0]), key[1], key[2]
        return {
            country: float(self.values(country)[site][layer, neuron]) for country in self.scores.countries
        }

    def rank(self, key: Key) -> tuple[int, int, float]:
        """(rank, size, score) among the neurons of the pool, all countries together."""
        site, layer, neuron = Site.parse(key[0]), key[1], key[2]
        values = self.values(None)
        mine = float(values[site][layer, neuron])
        pool = [array for s, array in values.items() if s.pool == site.pool]
        return 1 + sum(int((array > mine).sum()) for array in pool), sum(array.size for array in pool), mine

    # ------------------------------------------------------------------------------------------- model and questions

    def check_model(self, model: Any) -> None:
        """Raises `ModelError` for a model of other shape than the scores."""
        info = describe(model)
        differing = [s for s, width in self.scores.widths.items() if info.widths.get(s) != width]
        if info.layers != self.scores.layers or differing:
            raise ModelError(
                f"the scores are of {self.model_name} ({self.scores.layers} layers), the model given is {info}"
            )

    @cached_property
    def model(self) -> Any:
        """The view's own copy of the model, on the same weights. Raises `ModelError` where none is given and it is not the toy."""
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
        """What a user should know of the model, which is loaded for it; blank where all is well."""
        scored, here = self.scores.metadata.get("revision"), describe(self.model).revision
        if scored and here and scored != here:
            return f"the scores are of revision {scored} of {self.model_name}, the model at hand is {here}: they may not agree"
        return ""

    @cached_property
    def task(self) -> Task:
        """The questions that cards show. Raises `TaskError` where the task cannot be loaded by its name."""
        task = self.given_task
        if task is None:
            try:
                task = load_task(self.scores.task.partition(":")[0], data_dir=self.data_dir)
            except TaskError as error:
                raise TaskError(
                    f"the questions are missing: explore(..., task=load_task(...)); {error}"
                ) from error
            if any(q.split == "neuron" for q in task):
                task = task.neuron_split().limit(self.limit)
        if not len(task):
            raise TaskError(f"task {task.name!r} holds no question")
        return task.limit(self.questions)

    @cached_property
    def examples(self) -> tuple[Question, ...]:
        """A few questions to start with, none where they would have to be fetched."""
        task = self.given_task
        name = self.scores.task.partition(":")[0]
        if task is None and name in TASKS and TASKS[name].source == "package":
            task = load_task(name)
        if task is None:
            return ()
        if any(q.split == "test" for q in task):
            task = task.test_split()
        return tuple(task.limit(EXAMPLES))

    def reading(self, key: Key, choice: Choice, selection: NeuronSet) -> Reading:
        """What reads questions for a neuron, and for as many others as one pass has room for."""
        found = next((reading for reading in self._readings if key in reading), None)
        if found is not None:
            return found
        every = self.scores.layers * sum(self.scores.widths.values())
        if every <= FEW:
            keys = [
                (s.value, layer, i)
                for s, width in self.scores.widths.items()
                for layer in range(self.scores.layers)
                for i in range(width)
            ]
            neurons = NeuronSet.from_indices(keys)
        elif choice.name != ALL and key in (chosen := self.neurons_of(Choice(choice.name), selection)).keys():
            held = {known for reading in self._readings for known in reading.neurons.keys()}
            neurons = NeuronSet.from_indices(sorted(chosen.keys() - held))
        else:
            neurons = NeuronSet.from_indices([key])
        self._readings.append(Reading(self.model, self.task, neurons))
        return self._readings[-1]


def check_country(source: Source, country: str | None) -> str | None:
    """The country itself. Raises `ScoreError` where it has no scores."""
    if country is not None and country not in source.scores.countries:
        raise ScoreError(f"no scores of {country!r}: countries are {', '.join(source.scores.countries)}")
    return country
