"""Which countries are related: by language family, by region, by the Inglehart-Welzel cultural map.

These are BLEnD's 16 countries and regions. A region within a country takes that country's place on maps of
states (Assam: India; West Java: Indonesia; Nigeria in BLEnD is its Hausa-speaking north).
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from ..errors import TaskError
from ..names import which

SOURCES: Mapping[str, str] = {
    "family": (
        "Top-level family of the language that BLEnD asks in (Myung et al. 2024, arXiv 2406.09948), as in"
        " Glottolog (glottolog.org)."
    ),
    "region": "Sub-regions of the United Nations' Standard Country or Area Codes for Statistical Use (M49).",
    "values": (
        "Clusters of the Inglehart-Welzel World Cultural Map, World Values Survey wave 7 (2023). North Korea"
        " was not surveyed. Published lists of the clusters agree on these countries but for Indonesia, which"
        " others put into West & South Asia."
    ),
}
"""Relation -> the source of its groups."""
_TABLE: Mapping[str, tuple[str, str, str | None]] = {
    "USA": ("Indo-European", "Northern America", "English-Speaking"),
    "UK": ("Indo-European", "Northern Europe", "English-Speaking"),
    "South Korea": ("Koreanic", "Eastern Asia", "Confucian"),
    "Algeria": ("Afro-Asiatic", "Northern Africa", "African-Islamic"),
    "Indonesia": ("Austronesian", "South-eastern Asia", "African-Islamic"),
    "Spain": ("Indo-European", "Southern Europe", "Catholic Europe"),
    "Iran": ("Indo-European", "Southern Asia", "African-Islamic"),
    "Mexico": ("Indo-European", "Latin America and the Caribbean", "Latin America"),
    "Assam": ("Indo-European", "Southern Asia", "West & South Asia"),
    "Greece": ("Indo-European", "Southern Europe", "Orthodox Europe"),
    "Ethiopia": ("Afro-Asiatic", "Sub-Saharan Africa", "African-Islamic"),
    "Nigeria": ("Afro-Asiatic", "Sub-Saharan Africa", "African-Islamic"),
    "North Korea": ("Koreanic", "Eastern Asia", None),
    "West Java": ("Austronesian", "South-eastern Asia", "African-Islamic"),
    "China": ("Sino-Tibetan", "Eastern Asia", "Confucian"),
    "Azerbaijan": ("Turkic", "Western Asia", "African-Islamic"),
}
"""Country -> family, region, values; None is related to nobody."""


def relation_groups(relation: str, table: str | Path | None = None) -> dict[str, str]:
    """Country -> its group under a relation; countries of one group are related. A country without a group is
    left out.

    Args:
        relation: "family", "region", "values", or a column of the user's own `table`.
        table: a CSV file with a column ``country`` and one per relation; the package's own table by default.

    Raises:
        TaskError: an unknown relation, or a table that cannot be read.
    """
    if table is None:
        if relation not in SOURCES:
            raise TaskError(
                f"unknown relation {relation!r}{which(relation, SOURCES)}; others come with a"
                " table of your own"
            )
        column = list(SOURCES).index(relation)
        return {country: group for country, groups in _TABLE.items() if (group := groups[column])}
    try:
        with Path(table).open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TaskError(f"{table} cannot be read as CSV: {error}") from error
    columns = list(rows[0]) if rows else []
    if "country" not in columns or relation not in columns:
        raise TaskError(
            f"{table} has no columns 'country' and {relation!r}: it has {', '.join(columns) or 'no rows'}"
        )
    return {row["country"]: row[relation] for row in rows if row["country"] and row[relation]}
