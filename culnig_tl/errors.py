"""Errors that a user can act on: each message says in one line what is wrong and what would be right."""


class CulnigError(Exception):
    """Base of every error that this package raises on purpose. The command line shows its message and exits with 2."""


class TaskError(CulnigError):
    """A task that is unknown, has bad rows, or cannot do what was asked of it."""


class ModelError(CulnigError):
    """A model that cannot be loaded, or lacks what was asked of it."""


class PromptError(CulnigError):
    """A question that cannot be turned into tokens, e.g. a label that is not one token."""


class ScoreError(CulnigError):
    """Scores that cannot be computed, read or combined."""


class NeuronError(CulnigError):
    """A set of neurons that is malformed or does not fit the model."""


class StudyError(CulnigError):
    """A study's folder or arguments that cannot be used."""


class MatchError(CulnigError):
    """Answers in words that cannot be compared, e.g. for want of a language's analyser."""


class FineTuningError(CulnigError):
    """Modules that cannot be chosen, or a training that cannot be started or has gone wrong."""
