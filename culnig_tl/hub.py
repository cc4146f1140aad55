"""Names on the Hub, before anything is fetched: what was meant by one that is not there, and whether the Hub
answers at all, asked once in a while, so that without a network nothing waits for it again and again."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from .defaults import PAPER_MODELS, TOY
from .errors import ModelError
from .io import first_line
from .names import nearest

log = logging.getLogger(__name__)

REACHED_WITHIN, REMEMBERED = 10, 60
"""Seconds in which the Hub has to answer, and for which it is remembered that it did not."""


def check_spelling(source: str) -> None:
    """Raises `ModelError` for a name like the embedded model's: no such name is asked for on the network."""
    if source != TOY and "/" not in source and nearest(source, [TOY]):
        raise ModelError(no_model(source))


def no_model(source: str) -> str:
    """That there is no such model, in one line, with what was probably meant."""
    near = nearest(source, [TOY] if "/" not in source else PAPER_MODELS)
    if near is not None and near != source:
        return f"no model {source!r}: did you mean {near}?"
    return (
        f"no model {source!r}: neither a folder nor a name on the Hub (a private one needs `hf auth login`)"
    )


@contextmanager
def cache_where_offline(*, wanted: bool = True) -> Iterator[None]:
    """While it lasts, nothing is asked of a Hub that does not answer twice in a row: what is there is read
    from the cache, and what is not is an error at once."""
    from huggingface_hub import constants

    if not wanted or constants.HF_HUB_OFFLINE or _hub_answers(int(time.monotonic() // REMEMBERED)):
        yield
        return
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = False


@lru_cache(maxsize=1)
def _hub_answers(now: int) -> bool:
    """Whether the Hub can be reached, at the second try at the latest; asked once in a while (`now`)."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    for _ in range(2):
        try:
            get_session().head(constants.ENDPOINT, timeout=REACHED_WITHIN)
            return True
        except Exception as error:  # the client is another in every version, and so are its errors
            log.info("%s does not answer: %s", constants.ENDPOINT, first_line(error))
    return False
