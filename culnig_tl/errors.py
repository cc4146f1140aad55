"""Errors that a user can act on: each message says in one line what is wrong and what would be right."""

from __future__ import annotations


class CulnigError(Exception):
    """Base of the errors that are raised on purpose; the command line prints them and exits with 2."""


class FileError(CulnigError):
    """A file that is not what it should be: damaged, cut short, changed, of another program, or a link."""


class TaskError(CulnigError):
    """A task that is unknown, has bad rows, or cannot do what is asked of it."""


class ModelError(CulnigError):
    """A model that cannot be loaded, or lacks what is asked of it."""


class PromptError(CulnigError):
    """A question that cannot be turned into tokens, e.g. a label that is not one token."""


class ScoreError(CulnigError):
    """Scores that cannot be computed or combined."""


class NeuronError(CulnigError):
    """A set of neurons that is malformed or does not fit the model."""


class StudyError(CulnigError):
    """The folder or arguments of a study that cannot be used, or work that another process is doing."""


class UnknownNameError(StudyError, KeyError):
    """A name that a study has no part of; also a `KeyError`, which is what a dictionary raises."""

    __str__ = Exception.__str__  # that of KeyError puts the message in quotes


class MatchError(CulnigError):
    """Answers in words that cannot be compared, e.g. because a language's analyser is missing."""


class FineTuningError(CulnigError):
    """Modules that cannot be chosen, or a training run that cannot start or has failed."""
