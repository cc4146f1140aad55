"""Analyses that go on from scores and sets: is a drop more than chance, more than another set's, one country's own, the same at
other thresholds, in other words, at other depths, in other checkpoints?"""
