"""Small tasks with countries, splits and controls, for models with random weights."""

from __future__ import annotations

import dataclasses

from culnig_tl.tasks.countries import COUNTRIES
from culnig_tl.tasks.question import Question, Task

FOODS = ("rice", "bread and soup", "noodles", "football, cricket and golf")


def culture_task(name="culture", *, countries=COUNTRIES[:5], each=4, culture=True) -> Task:
    """`each` questions per country and split; a cluster holds one question of every country."""
    rows = []
    for c, country in enumerate(countries):
        for i in range(each):
            for split in ("neuron", "test"):
                lines = "\n".join(f"{label}. {FOODS[(i + k + c) % 4]}" for k, label in enumerate("ABCD"))
                asked = f"What do people in {country} eat at New Year{' or later' * (i % 3)}?"
                rows.append(
                    Question(
                        name,
                        f"{name}-{country}-{i}-{split}",
                        f"{split}{i}",
                        f"{asked}\n{lines}\nAnswer:",
                        ("A", "B", "C", "D"),
                        "ABCD"[(i + c) % 4],
                        country=country,
                        group="Food",
                        split=split,
                        control=f"{lines}\nAnswer:",
                    )
                )
    return Task(name, tuple(rows), source="tests", culture=culture)


def plain_task(name="sense") -> Task:
    """The same without countries, as a task without culture."""
    task = culture_task(name, countries=COUNTRIES[:2], culture=False)
    return dataclasses.replace(task, questions=tuple(dataclasses.replace(q, country=None) for q in task))
