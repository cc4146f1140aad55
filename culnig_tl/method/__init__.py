"""The method: scores (`score`, a formula per file in `methods`), selection, ablation, evaluation, and what
they are checked against (`exact`)."""
