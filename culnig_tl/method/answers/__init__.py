"""Answers in words: generated (`generation`), cut into lemmas by language (`analysers`), compared with what
people said (`matching`), counted (`short_answers`), and how far the matcher agrees with annotators
(`variants`)."""
