"""The view's two panes, as widgets that decide nothing: a neuron's card, and the bench."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets as w
import traitlets as t

from ..data.neurons import NeuronSet
from ..tasks.question import Question
from . import page
from .asking import OPERATIONS
from .reading import Key

WIDE = {"width": "100%"}
ROW = {"width": "100%", "flex_flow": "row wrap", "align_items": "center"}
LABELLED = {"description_width": "initial"}
COLUMN = {"flex": "1 1 380px", "min_width": "0"}
"""Of two columns side by side, or one above the other where a cell is too narrow."""
_PANE = {"width": "100%", "padding": "0 4px 0 0"}
NORMALISED: Mapping[str, str] = {
    "unconditional": "less that of the same words without the question",
    "sum": "summed over their tokens",
    "length": "per character",
}
"""What is compared of each option's words, by normalisation."""
Act = Callable[[], object]


def button(text: str, act: Act) -> w.Button:
    """A button that calls `act`."""
    made = w.Button(description=text, layout={"width": "auto"})
    made.on_click(lambda _: act())
    return made


def menu(
    view: t.HasTraits, name: str, label: str, options: Sequence[tuple[str, Any]], width: str
) -> w.Dropdown:
    """A dropdown linked to a trait; "" stands for None, which a Dropdown cannot show as an option."""
    dropdown = w.Dropdown(options=list(options), description=label, layout={"width": width}, style=LABELLED)
    t.link(
        (view, name),
        (dropdown, "value"),
        transform=(lambda v: "" if v is None else v, lambda v: None if v == "" else v),
    )
    return dropdown


class CardPane(w.VBox):
    """A neuron's card, the neurons of the clicked cell to choose from, and buttons for the neuron."""

    def __init__(self, chosen: Callable[[Key], object], *, only: Act, add: Act, remove: Act) -> None:
        """`chosen` gets the neuron that was picked from those of the cell."""
        self.offered = w.Dropdown(
            description="Neuron", layout={"width": "260px", "display": "none"}, style=LABELLED
        )
        self.offered.observe(lambda change: change["new"] is not None and chosen(change["new"]), "value")
        acts = {"Only this neuron": only, "Add to selection": add, "Remove": remove}
        self.buttons = [button(text, act) for text, act in acts.items()]
        hint = page.small("Click a cell of the heatmap, or a dot below it: the neuron's card appears here.")
        self.head, self.questions, self.promoted = (w.HTML(layout=WIDE) for _ in range(3))
        self.head.value = page.wrap(hint)
        row = w.HBox([self.offered, *self.buttons], layout=ROW)
        super().__init__([row, self.head, self.questions, self.promoted], layout=_PANE)
        self.add_class("culnig-card")
        self.add_class("culnig-column")
        self.enable(False)

    def offer(self, keys: Sequence[Key]) -> None:
        """The neurons of a clicked cell, the strongest first; hidden where there is only one."""
        self.offered.options = [(f"{site} {layer} / {i}", (site, layer, i)) for site, layer, i in keys]
        self.offered.layout.display = None if len(keys) > 1 else "none"
        self.offered.index = 0 if keys else None

    def enable(self, on: bool) -> None:
        """Whether there is a neuron for the buttons."""
        for each in self.buttons:
            each.disabled = not on

    def clear(self) -> None:
        """Removes what the model said about another neuron."""
        self.questions.value = self.promoted.value = ""


class Bench(w.VBox):
    """The selection, the switch, a question, and its answers."""

    def __init__(
        self,
        view: t.HasTraits,
        *,
        compared: str | None,
        ask: Act,
        take: Act,
        clear: Act,
        example: Callable[[Question], object],
    ) -> None:
        """`example` gets a question that was picked. `compared` is the normalisation of cloze questions, of
        which nothing but the text is typed; None where a label answers."""
        self.selected = w.HTML(layout={"flex": "1 1 180px"})
        self.examples = w.Dropdown(description="Example", layout=WIDE, style=LABELLED)
        self.examples.observe(
            lambda change: isinstance(change["new"], Question) and example(change["new"]), "value"
        )
        self.answered = w.HTML(layout=WIDE)
        self.answered.add_class("culnig-answered")
        switch = w.ToggleButtons(options=OPERATIONS, style={"button_width": "96px"})
        hint = "A question, and its options on lines of their own:\nA. first\nB. second"
        typed = w.Textarea(placeholder=hint, rows=4, continuous_update=False, layout=WIDE)
        lazily: dict[str, Any] = {"continuous_update": False, "style": LABELLED}
        labels = w.Text(
            description="Labels", placeholder="from the lines A. B. C.", layout={"width": "45%"}, **lazily
        )
        prefix = w.Text(
            description="Answer starts", placeholder="(nothing)", layout={"width": "52%"}, **lazily
        )
        linked = {"operation": switch, "question": typed, "labels": labels, "answer_prefix": prefix}
        for name, widget in linked.items():
            t.link((view, name), (widget, "value"))
        in_words = w.HTML(layout=WIDE)
        in_words.value = page.wrap(
            page.small(
                "Answered in words (cloze): by the likelihood of each option's words, "
                f"{NORMALISED.get(compared or '', '')}. Write the options on lines of their own; "
                "labels and a beginning of the answer play no part."
            )
        )
        asking = button("Ask", ask)
        asking.button_style = "primary"
        super().__init__(
            [
                w.HBox([self.selected, button("Select all shown", take), button("Clear", clear)], layout=ROW),
                self.examples,
                typed,
                w.HBox([labels, prefix], layout=WIDE) if compared is None else in_words,
                w.HBox([asking, switch], layout=ROW),
                self.answered,
            ],
            layout={**_PANE, "flex": "0 0 auto"},
        )
        self.add_class("culnig-bench")
        self.add_class("culnig-column")

    def offer(self, questions: Sequence[Question], title: str) -> None:
        """Questions to pick from, under a title."""
        options: list[tuple[str, Question | str]] = [(f"({title})", "")]
        for q in questions:
            about = f"{q.country}: " if q.country else ""
            options.append((about + " ".join(((q.form == "cloze" and q.stem) or q.prompt).split())[:90], q))
        self.examples.options = options
        self.examples.index = 0
        self.examples.layout.display = None if questions else "none"

    def no_examples(self, reason: str) -> None:
        """Says why there is nothing to pick from."""
        self.offer((), reason[:110])
        self.examples.layout.display = None

    def describe(self, neurons: NeuronSet) -> None:
        """Says how many neurons are selected."""
        self.selected.value = page.wrap(page.selection(neurons))
