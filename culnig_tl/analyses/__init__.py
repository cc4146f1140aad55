"""Experiments on sets of neurons: is a drop more than chance, more than another set's, one country's own, the
same at other thresholds, in other words, at other depths, in other checkpoints?

Of a finished study, each in one line; the study is its folder or the object that `run_study` returned:

    claim        could what it found have come out otherwise?
    countries    what each country's neurons cost each country
    stability    do the same neurons return on other questions and in other wordings?
    sweep        does it depend on the thresholds?
    parts        what is each part of the method good for?
    enhance      does scaling the neurons up raise accuracy?

Of a model and tasks: `methods`, `truth`, `compare_languages`, `compare_tasks`, `short_answers`; of several
studies: `compare_checkpoints`. Every result has `tables()`, file stem -> DataFrame, and is drawn by
`figures.plot`.

The names are listed once, in ``__init__.pyi``; each is imported when it is first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
