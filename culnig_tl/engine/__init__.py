"""The model and its passes: loading (`models`, `loading`), hooks, prompts, one pass over questions (`run`),
what resumes it (`checkpoint`) and what shares it among processes (`world`), and what TransformerLens needs
worked around (`workarounds`)."""
