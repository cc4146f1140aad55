"""Prompts against the model's context: one that is too long is named and counted, never cut."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from ..errors import ScoreError
from ..tasks.question import Task
from .prompts import Prompt

log = logging.getLogger(__name__)

NAMED = 5
"""Questions that a warning names; the metadata names all."""


def context_length(model: Any) -> int | None:
    """Tokens that the model was made for, by its configuration; None where it says nothing."""
    plain = getattr(model, "original_model", None)
    config = getattr(plain, "config", None)
    if config is None:  # a HookedTransformer
        return int(model.cfg.n_ctx)
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    length = getattr(config, "max_position_embeddings", None)
    return int(length) if length else None


def within_context(model: Any, task: Task, prompts: Sequence[Prompt]) -> tuple[list[Prompt], list[str]]:
    """(prompts that fit in the model's context, ids of the questions that do not); the latter are named in the log.

    Raises `ScoreError` where none fits.
    """
    most = context_length(model)
    if most is None:
        return list(prompts), []
    too_long = [prompt for prompt in prompts if len(prompt.tokens) > most]
    if not too_long:
        return list(prompts), []
    named = ", ".join(f"{p.question.id!r} ({len(p.tokens)} tokens)" for p in too_long[:NAMED])
    more = f" and {len(too_long) - NAMED} more" if len(too_long) > NAMED else ""
    if len(too_long) == len(prompts):
        raise ScoreError(
            f"no question of {task.name} fits in the model's context of {most} tokens: {named}{more}"
        )
    log.warning(
        "%d of %d questions of %s do not fit in the model's context of %d tokens and are left out: %s%s",
        len(too_long), len(prompts), task.name, most, named, more,
    )  # fmt: skip
    return [prompt for prompt in prompts if len(prompt.tokens) <= most], [
        prompt.question.id for prompt in too_long
    ]
