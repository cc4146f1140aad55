"""What a reader of the package is promised: a formula fits on one screen."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import culnig_tl

PACKAGE = Path(culnig_tl.__file__).parent
LONGEST = 80


@pytest.mark.parametrize("floor", ["method", "engine"])
def test_no_function_is_longer_than_a_screen(floor):
    found = {}
    for file in (PACKAGE / floor).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef):
                found[f"{file.relative_to(PACKAGE)}: {node.name}"] = node.end_lineno - node.lineno + 1
    assert len(found) > 50
    assert {name: lines for name, lines in found.items() if lines > LONGEST} == {}
