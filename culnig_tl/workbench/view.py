"""The widget: choices above, the heatmap on the left, a neuron's card and the bench on the right.

Work runs in threads of its own: one for pictures, one for the model, and one in which questions are loaded.
The latest request of a kind wins, and what is asked goes before what is read in the background. State is in
traits, as plain data: a cell reads, sets and observes the same values as the mouse does.
"""

from __future__ import annotations

import html
import logging
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from time import perf_counter, sleep
from typing import Any

import ipywidgets as w
import traitlets as t

from ..data.neurons import NeuronSet, Site
from ..errors import CulnigError, NeuronError, StudyError
from ..figures import promoted_tokens
from ..figures.values import country_label
from ..names import which
from ..study.config import UNCHANGED
from ..tasks.question import Question
from . import page
from .asking import OPERATIONS, Answers, Known, ask, option_lines, read_question, text_of
from .heat import Heatmap, draw
from .panes import COLUMN, ROW, WIDE, Bench, CardPane, menu
from .reading import Key, Reader
from .source import ALL, SELECTION, Choice, Source
from .worker import Job, Show, Worker

log = logging.getLogger(__name__)

SHOWN = 5
"""Top questions on a card."""
ASK, CARD, AHEAD = range(3)
"""Ranks of what the model does: the lowest goes first."""
ASK_AGAIN = 0.05
"""Seconds between two looks whether the questions are loaded."""
HEIGHT = "670px"
"""Of the card and the bench together; each scrolls."""


class Workbench(w.VBox):
    """What `culnig_tl.explore` returns."""

    set_name = t.Unicode(help="Name of the set that the heatmap shows.")
    country = t.Unicode(None, allow_none=True, help="Whose scores; None: all countries together.")
    site = t.Unicode(None, allow_none=True, help="One site alone, e.g. mlp.gate; None: all that are scored.")
    layer = t.Int(
        None, allow_none=True, help="Its neurons are drawn one by one; None follows the clicked neuron."
    )
    neuron = t.Tuple(None, allow_none=True, help="(site, layer, index) of the card.")
    selection = t.Instance(
        NeuronSet, help="The neurons that are ablated: goes into ablate() and evaluate() as it is."
    )
    operation = t.Enum(OPERATIONS, UNCHANGED, help="What is done to the selection when a question is asked.")
    question = t.Unicode(help="What is typed.")
    labels = t.Unicode(
        help="Possible answers, separated by commas or spaces; blank: those of the lines A. B. C. Of cloze "
        "questions the lines alone count."
    )
    answer_prefix = t.Unicode(help="What the answer starts with, before the label; not of cloze questions.")
    answers = t.Instance(Answers, allow_none=True, help="The last answers, before and after.")
    error = t.Unicode(help="What went wrong, in words; blank where nothing did.")

    def __init__(self, source: Source) -> None:
        self.source = source
        self._screen = threading.RLock()
        self._pictures = Worker(self._failed, idle=self._ready, screen=self._screen)
        self._models = Worker(self._failed, idle=self._ready, screen=self._screen)
        self._tasks = Worker(self._failed, idle=self._ready, screen=self._screen)
        self._unchanged = Known()
        self._errors: dict[str, str] = {}
        self._since: float | None = None
        self._known: dict[tuple[str, tuple[str, ...], str], Question] = {}
        first = next(iter(source.sets), ALL)
        nothing = source.nothing()
        chosen = nothing if first == ALL else source.neurons_of(Choice(first), nothing)
        super().__init__(set_name=first, selection=source.as_selection(chosen))
        self._id = uuid.uuid4().hex[:8]
        self._heat = Heatmap(draw(source, self.choice, self.selection, None), self._clicked)
        self._build()
        self._bench.offer((), "")
        if source.at_hand:
            self._show_examples(source.examples)
        self._bench.describe(self.selection)
        self.observe(self._redraw, ["set_name", "country", "site", "layer", "neuron"])
        self.observe(self._on_neuron, ["neuron"])
        self.observe(self._on_selection, ["selection"])
        self.observe(self._on_operation, ["operation"])
        if not source.at_hand:
            self._submit(self._tasks, "examples", self._find_examples)
        if source.given_model is not None:
            self._submit(self._models, "model", self._ahead, AHEAD)

    # ---------------------------------------------------------------------------------------------- from code

    @property
    def choice(self) -> Choice:
        """What the heatmap shows."""
        return Choice(self.set_name, self.country, Site(self.site) if self.site else None, self.layer)

    def ask(self, question: str | None = None) -> None:
        """Asks what is typed, or `question`, without waiting for the `answers` to appear."""
        if question is not None:
            self.question = question
        self._unchanged.before = None  # asked by hand: both answers are new ones
        self._ask()

    def _ask(self) -> None:
        typed, neurons, operation = self._typing, self.selection, self.operation

        def job() -> Iterator[Show]:
            yield from self._load()
            if self._unchanged.one_row is None:
                self._unchanged.one_row = self.source.one_row
            answers = ask(self.source.model, self._typed(*typed), neurons, operation, self._unchanged)
            yield lambda: self._show_answers(answers)

        self._submit(self._models, "asking", job, ASK)

    @property
    def _workers(self) -> tuple[Worker, ...]:
        return self._pictures, self._models, self._tasks

    def wait(self, timeout: float = 60.0) -> None:
        """Waits until the view is ready. Raises `StudyError` if that takes longer than `timeout` seconds."""
        end = perf_counter() + timeout
        for worker in self._workers:
            if not worker.wait(end - perf_counter()):
                raise StudyError(f"the view is still working after {timeout:g} seconds")

    def __repr__(self) -> str:
        return f"Workbench of {self.source.model_name}: {self.selection}"

    def _ipython_display_(self) -> None:
        """The live view, and what shows without a kernel; the live one hides it."""
        from IPython.display import HTML, display

        display(super()._repr_mimebundle_(), raw=True)
        display(HTML(f"<div class='culnig-static-{self._id}'>{self.static_html()}</div>"))

    def static_html(self) -> str:
        """The heatmap as a picture, and the set's table; needs no kernel, no script, no network."""
        neurons = None if self.set_name == ALL else self.source.neurons_of(self.choice, self.selection)
        return page.static(self._heat.drawn, neurons, self.source.about)

    # ------------------------------------------------------------------------------------------------- checks

    @t.validate("set_name")
    def _check_set(self, proposal: Any) -> str:
        names = [*self.source.sets, ALL, SELECTION]
        if proposal["value"] not in names:
            raise NeuronError(f"no set {proposal['value']!r}{which(proposal['value'], names)}")
        return proposal["value"]

    @t.validate("country", "site", "layer")
    def _check_choice(self, proposal: Any) -> str | int | None:
        return getattr(self.source, f"check_{proposal['trait'].name}")(proposal["value"])

    @t.validate("neuron")
    def _check_neuron(self, proposal: Any) -> Key | None:
        return None if proposal["value"] is None else self.source.check_neuron(proposal["value"])

    @t.validate("selection")
    def _check_selection(self, proposal: Any) -> NeuronSet:
        self.source.check(proposal["value"])
        return proposal["value"]

    # --------------------------------------------------------------------------------------------- the screen

    def _build(self) -> None:
        """Makes the widgets and ties the choices to the traits."""
        source, scores = self.source, self.source.scores
        hide = f"<style>.culnig-static-{self._id} {{ display: none }}</style>"
        title = f"<h3>{html.escape(source.title)}</h3>"
        title = w.HTML(
            page.wrap(page.STYLE, hide, title, page.small(source.about)), layout={"flex": "1 1 20em"}
        )
        self._status = w.HTML(layout={"flex": "0 0 16em"})
        head = w.HBox([title, self._status], layout=ROW)
        self._message = w.HTML(layout=WIDE)
        t.dlink((self, "error"), (self._message, "value"), page.message)
        sets = [(name, name) for name in (*source.sets, ALL, SELECTION)]
        countries = [("all countries", ""), *((country_label(name), name) for name in source.countries)]
        sites = [("all sites", ""), *((site.value, site.value) for site in scores.sites)]
        layers = [("follow the click", ""), *((str(layer), layer) for layer in range(scores.layers))]
        menus = [
            menu(self, "set_name", "Set", sets, "230px"),
            menu(self, "country", "Country", countries, "190px"),
            menu(self, "site", "Site", sites, "130px"),
            menu(self, "layer", "Layer", layers, "170px"),
        ]
        choices = w.HBox(menus, layout=ROW)
        self._card = CardPane(
            lambda key: self.set_trait("neuron", key),
            only=lambda: self._select(lambda: source.single(self._chosen())),
            add=lambda: self._select(lambda: self.selection | source.single(self._chosen())),
            remove=lambda: self._select(lambda: self.selection - source.single(self._chosen())),
        )
        self._bench = Bench(
            self,
            compared=source.normalise if source.form == "cloze" else None,
            ask=self.ask,
            take=lambda: self._select(lambda: source.neurons_of(self.choice, self.selection)),
            clear=lambda: self._select(source.nothing),
            example=self._on_example,
        )
        right = w.VBox([self._card, self._bench], layout={**COLUMN, "height": HEIGHT})
        columns = w.HBox(
            [self._heat.box, right], layout={**ROW, "align_items": "flex-start", "grid_gap": "16px"}
        )
        self.children = (head, choices, self._message, columns)
        self.layout.width = "100%"

    # ------------------------------------------------------------------------------------------- what happens

    def _clicked(self, keys: list[Key]) -> None:
        """A cell or a dot of the heatmap was clicked."""
        with self._screen:
            self._card.offer(keys)
            self.neuron = keys[0]

    def _redraw(self, change: Any) -> None:
        if change["name"] == "neuron" and self._card.offered.value != self.neuron:
            self._card.offer([])  # chosen in code
        choice, selection, neuron = self.choice, self.selection, self.neuron

        def job() -> Iterator[Show]:
            drawn = draw(self.source, choice, selection, neuron)
            yield lambda: self._heat.show(drawn)

        self._submit(self._pictures, "heatmap", job)

    def _on_neuron(self, change: Any) -> None:
        key: Any = self.neuron
        with self._screen:
            self._card.enable(key is not None)
            self._card.clear()
        if key is None:
            self._card.head.value = ""
            return
        choice, selection = self.choice, self.selection

        def scores() -> Iterator[Show]:
            head = page.card_head(key, self.source.rank(key), self.source.tags(key))
            bars = page.country_bars(self.source.country_scores(key))
            yield lambda: setattr(self._card.head, "value", page.wrap(head, bars))

        def rest() -> Iterator[Show]:
            if not self.source.has_model:
                needs = page.small(
                    f"Top questions and promoted tokens need the model: {self.source.how_to_load}."
                )
                yield lambda: setattr(self._card.questions, "value", page.wrap(needs))
                return
            yield from self._load()
            directions = self._directions(key)
            yield lambda: setattr(self._card.promoted, "value", page.wrap(directions))
            yield from self._questions_ready()
            yield from self._read(self.source.reader(key, choice, selection), key)

        self._submit(self._pictures, "card", scores)
        self._submit(self._models, "top questions", rest, CARD)

    def _read(self, reader: Reader, key: Key) -> Iterator[Show]:
        """Reads to the end, and shows the top questions after every step."""
        first = True
        while first or not reader.finished:
            if not reader.finished:
                reader.step(key)
            top = reader.top(key, SHOWN)
            for each in top:
                if not reader.seen(key, each):
                    reader.look(key, each)
                    yield lambda: self._say("looking at the top questions")
            found = [reader.along(key, each) for each in top]
            total, offered = f"{len(reader.task):,} read", first or reader.finished
            note = f"of {total}" if reader.finished else f"of {reader.done:,} of {total} so far"
            text = page.questions(found, note)
            yield partial(self._show_questions, text, [s.top.question for s in found] if offered else [])
            first = False
            yield lambda: self._say(f"reading questions: {reader.done} of {len(reader.task)}")

    def _directions(self, key: Key) -> str:
        site = Site.parse(key[0])
        if site in (Site.ATTN_Q, Site.ATTN_K):
            return page.small(
                f"No promoted tokens: {site} neurons write nothing to the residual stream, "
                "they decide where heads look."
            )
        if site is Site.MLP_UP and Site.MLP_GATE in self.source.scores.widths:
            site = Site.MLP_GATE  # both branches of a gated MLP's neuron write through the same row
        table = promoted_tokens(self.source.model, site, key[1], key[2], count=8)
        return page.promoted(table, gated=site is not Site.ATTN_V and Site.MLP_UP in self.source.model_sites)

    def _on_selection(self, change: Any) -> None:
        with self._screen:
            self._bench.describe(self.selection)
        if self.set_name == SELECTION:
            self._redraw(change)
        if self.answers is not None and self.operation != UNCHANGED:
            self._ask()

    def _on_operation(self, change: Any) -> None:
        if self.question.strip():
            self._ask()

    def _select(self, make: Callable[[], NeuronSet]) -> None:
        """A button changes the selection; the view says what cannot be selected."""
        try:
            neurons = make()
        except CulnigError as error:
            with self._screen:
                self._failed("click", error)
            return
        self.selection = self.source.as_selection(neurons)

    def _chosen(self) -> Key:
        key: Any = self.neuron
        if key is None:
            raise NeuronError("no neuron is chosen: click a cell of the heatmap")
        return key

    # ---------------------------------------------------------------------------------------------- questions

    @property
    def _typing(self) -> tuple[str, str, str]:
        return self.question, self.labels, self.answer_prefix

    def _typed(self, text: str, labels: str, answer_prefix: str) -> Question:
        """What is typed, as a question; the task's own question if it is one of them word for word."""
        if self.source.form == "cloze":
            asked = self._known.get((text.strip(), (), "")) or read_question(text, form="cloze")
            return self.source.as_scored(asked)
        parts = labels.split(",") if "," in labels else labels.split()
        given = tuple(part.strip() for part in parts if part.strip())
        typed = read_question(text, labels=given, answer_prefix=answer_prefix)
        return self._known.get((text.strip(), typed.options, typed.answer_prefix), typed)

    def _know(self, question: Question) -> str:
        """Remembers a task's question by what is typed to ask it; returns the text."""
        text = text_of(question).strip()
        labels = question.options if question.form == "letters" else ()
        self._known[text, labels, question.answer_prefix] = question
        return text

    def _offer(self, questions: Sequence[Question], title: str) -> None:
        for question in questions:
            self._know(question)
        self._bench.offer(questions, title)

    def _find_examples(self) -> Iterator[Show]:
        """Questions to pick from, of a task that is loaded by its name: from the Hub, or a mirror of it."""
        yield lambda: self._say("loading the questions")
        try:
            examples = self.source.examples
        except CulnigError as error:  # nobody asked for them: no fault of the view's
            text = str(error)
            yield lambda: self._bench.no_examples(text)
            return
        yield lambda: self._show_examples(examples)

    def _show_examples(self, examples: Sequence[Question]) -> None:
        self._offer(examples, "a question of the task")
        if examples and not self.question:
            self._put(examples[0])

    def _on_example(self, question: Question) -> None:
        self._put(question)
        self.ask()

    def _put(self, question: Question) -> None:
        """Puts a task's question into the text box."""
        text = self._know(question)
        listed = question.form == "cloze" or tuple(option_lines(text)) == question.options
        self.labels = "" if listed else ", ".join(question.options)
        self.answer_prefix, self.question = question.answer_prefix, text

    # ------------------------------------------------------------------------------------------------ results

    def _show_answers(self, answers: Answers) -> None:
        self._bench.answered.value = page.answers(answers)
        self.answers = answers

    def _show_questions(self, text: str, found: list[Question]) -> None:
        self._card.questions.value = page.wrap(text)
        if found:
            self._offer(found, "a question of the card")

    # --------------------------------------------------------------------------------------------------- work

    def _load(self) -> Iterator[Show]:
        """Gets the model ready, once."""
        if self.source.loaded:
            return
        yield lambda: self._say("getting the model ready")
        caution = self.source.caution_of_model()
        yield lambda: self._failed("model", StudyError(caution)) if caution else self._say("working")

    def _ahead(self) -> Iterator[Show]:
        """Gets ready what the first click would have to wait for."""
        try:
            yield from self._load()
            yield from self._questions_ready()
        except CulnigError:  # said where something is asked for
            log.debug("not everything could be made ready", exc_info=True)

    def _questions_ready(self) -> Iterator[Show]:
        """Waits for the questions without keeping others waiting, and gets them ready for the model, once."""
        source = self.source
        while not source.at_hand and self._tasks.waiting:
            yield lambda: self._say("loading the questions")
            sleep(ASK_AGAIN)
        if not source.ready:
            yield lambda: self._say("getting the questions ready")
            source.get_ready()

    def _submit(self, worker: Worker, kind: str, job: Job, rank: int = 0) -> None:
        with self._screen:
            self._errors.pop(kind, None)
            self._errors.pop("click", None)
            self._tell()
            if self._since is None:
                self._since = perf_counter()
                self._say("working")
            worker.submit(kind, job, rank)

    def _failed(self, kind: str, error: Exception) -> None:
        text = str(error)
        if not isinstance(error, CulnigError):
            text = f"{kind} failed: {type(error).__name__}: {next(iter(text.splitlines()), '')}"
        self._errors[kind] = text
        self._tell()

    def _tell(self) -> None:
        self.error = "; ".join(self._errors.values())

    def _say(self, text: str) -> None:
        dot = f"<span style='color:{page.AFTER}'>●</span>"
        self._status.value = page.wrap(f"<span class='small'>{dot} {text} …</span>")

    def _ready(self) -> None:
        """One of the workers has nothing left to do."""
        if self._since is None or any(worker.waiting for worker in self._workers):
            return
        took, self._since = perf_counter() - self._since, None
        text = f"{took:.1f} s" if took >= 1 else f"{1000 * took:.0f} ms"
        self._status.value = page.wrap(f"<span class='small'>ready ({text})</span>")
