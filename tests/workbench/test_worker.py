"""The workbench's thread: the latest request wins, short ones come through, errors kill nobody."""

from __future__ import annotations

import threading

from culnig_tl.errors import CulnigError
from culnig_tl.workbench.worker import Worker


def worker() -> tuple[Worker, list, list]:
    errors, idle = [], []
    return (
        Worker(
            lambda kind, error: errors.append((kind, str(error))),
            idle=lambda: idle.append(1),
            screen=threading.RLock(),
        ),
        errors,
        idle,
    )


def test_latest_request_of_a_kind_wins():
    made, errors, idle = worker()
    gate, running, shown = threading.Event(), threading.Event(), []

    def job(name, block=False):
        def steps():
            if block:
                running.set()
                gate.wait(30)
            yield lambda: shown.append(name)

        return steps

    made.submit("card", job("first", block=True))
    assert running.wait(30)
    for name in ("second", "third", "last"):
        made.submit("card", job(name))
    made.submit("ask", job("question"))
    gate.set()
    assert made.wait(30)
    assert sorted(shown) == ["last", "question"] and not errors and idle


def test_long_job_lets_a_short_one_through():
    made, errors, _ = worker()
    gate, running, shown = threading.Event(), threading.Event(), []

    def long():
        running.set()
        gate.wait(30)
        for i in range(5):
            yield lambda: shown.append(f"step {i}")  # noqa: B023

    def short():
        yield lambda: shown.append("short")

    made.submit("long", long)
    assert running.wait(30)
    made.submit("short", short)
    gate.set()
    assert made.wait(30) and shown[1] == "short" and len(shown) == 6 and not errors


def test_worker_survives_errors():
    made, errors, _ = worker()

    def broken():
        yield lambda: None
        raise CulnigError("no such thing")

    def unseen():
        yield lambda: 1 / 0

    shown = []
    made.submit("a", broken)
    made.submit("b", unseen)
    assert made.wait(30) and errors == [("a", "no such thing")]
    made.submit("c", lambda: iter([lambda: shown.append("still here")]))
    assert made.wait(30) and shown == ["still here"]


def test_what_is_asked_goes_before_what_is_read_in_the_background():
    made, errors, _ = worker()
    gate, running, shown = threading.Event(), threading.Event(), []

    def steps(name, count):
        for i in range(count):
            if name == "reading" and i == 0:
                running.set()
                gate.wait(30)
            yield lambda: shown.append(name)

    made.submit("reading", lambda: steps("reading", 4), 1)
    assert running.wait(30)
    made.submit("ahead", lambda: steps("ahead", 2), 2)
    made.submit("asking", lambda: steps("asking", 3), 0)
    gate.set()
    assert made.wait(30) and not errors
    assert shown == ["reading", *3 * ["asking"], *3 * ["reading"], *2 * ["ahead"]]
