"""CAPE: LAPE of cultures, less the neurons of their languages (Namazifard and Galke 2025, arXiv 2508.02241).

Culture neurons are LAPE's on texts about each culture, language neurons LAPE's on texts in each language;
pure culture neurons are culture neurons of a country without its language neurons:

    pure_c = culture_c minus language_c

The authors' transformers script hooks the whole MLP's output, which has the width of the residual stream, and
stores it in the first places of a table of neurons; here the gate is read, as their description and their
vLLM script have it.

Language neurons are found on a task of its own (``language=``): `blend-local`, the questions in each region's
language; where a model has no languages to tell apart, a reading task that names the countries and asks
nothing about their culture stands in.

Cost: one forward pass over each task.
"""

from __future__ import annotations

from collections.abc import Mapping

from ...data.neurons import Site
from .base import DerivedMethod, Job, Language, Totals
from .lape import lowest_share


class Cape(DerivedMethod):
    """LAPE's culture neurons less its language neurons, country by country."""

    name = "cape"
    about = "LAPE of cultures less LAPE of their languages"
    gate_only, cloze, aggregation = True, True, "cape"
    builds_on = builds_on_language = ("lape",)

    def derive(self, job: Job, scores: Mapping[str, Totals], language: Language | None) -> Totals:
        assert language is not None
        culture, spoken = scores["lape"][Site.MLP_GATE].clone(), language.scores["lape"]
        chosen = lowest_share(spoken).bool()
        for row, country in enumerate(job.countries):
            if country in language.countries:
                theirs = spoken[Site.MLP_GATE][language.countries.index(country)] > 0
                culture[row][chosen & theirs] = 0.0
        return {Site.MLP_GATE: culture}
