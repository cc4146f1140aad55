"""CSV files: no cell of them is a formula to the spreadsheet that opens it, and all are written in one
place."""

from __future__ import annotations

import ast
import csv
import io as text
import re
from pathlib import Path

import pandas as pd
import pytest

import culnig_tl
from culnig_tl import NeuronSet, io
from culnig_tl.analyses.paper import ResultsTable
from culnig_tl.data.neurons import Provenance

from .helpers import invoked

FORMULAS = ["=1+1", "+1", "-1", "@SUM(1)", "\t=1", "\r=1", "\n=1", "＝1", "＠x", "=cmd|'/C calc'!A0"]
PLAIN = ["Japan", "a=b", "1-2", "", "'quoted'", "Côte d'Ivoire", "{=}"]


def cells(content: str, separators: str = ",") -> list[str]:
    """Every cell of a CSV file, as programs see them that take these separators."""
    return [
        cell
        for one in separators
        for line in csv.reader(text.StringIO(content), delimiter=one)
        for cell in line
    ]


def dangerous(content: str, separators: str = ",") -> list[str]:
    return [c for c in cells(content, separators) if c[:1] in tuple("=+-@\t\r\n＝＋－＠") and not _number(c)]


def _number(cell: str) -> bool:
    return re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?", cell) is not None


@pytest.mark.parametrize("cell", FORMULAS)
def test_a_formula_stays_text(cell):
    countries = pd.Index([cell, f"x{cell}"], name="country")
    content = io.csv_of(pd.DataFrame({cell: [cell, "x"], "number": [-1.5, 2.0]}, index=countries), index=True)
    assert not dangerous(content) and cells(content)[:3] == ["country", f"'{cell}", "number"]
    assert f"'{cell}" in cells(content)[3:5] and "-1.5" in cells(content), "numbers stay numbers"
    assert io.written_cell(f"'{cell}") == cell and io.written_cell(io.plain_cell(f"'{cell}")) == f"'{cell}"


@pytest.mark.parametrize("cell", PLAIN)
def test_other_text_stays_as_it_is(cell):
    assert io.plain_cell(cell) == cell == io.written_cell(cell)


def test_columns_of_several_levels_and_of_one_name():
    levels = pd.DataFrame([[1, "=x"]], columns=pd.MultiIndex.from_tuples([("=a", "b"), ("a", "=b")]))
    assert not dangerous(io.csv_of(levels))
    twice = pd.DataFrame([["=x", "=y"]], columns=["a", "a"])
    assert cells(io.csv_of(twice)) == ["a", "a", "'=x", "'=y"]


def test_neurons_of_any_country_and_model_are_no_formulas_and_read_back(tmp_path):
    rows = [("mlp.gate", 0, 3, country) for country in (*FORMULAS, "'=1", "Japan")]
    known = Provenance(kind="x,=HYPERLINK(1);=2", model="a,@b;-3")
    made = NeuronSet(pd.DataFrame(rows, columns=["site", "layer", "neuron", "country"]), known)
    content = made.save(tmp_path / "n.csv").read_bytes().decode()
    assert not dangerous(content, ",;")
    found = NeuronSet.load(tmp_path / "n.csv")
    assert found.provenance == known and found.table.equals(made.table)


def test_the_table_in_the_papers_form_has_no_formulas():
    frame = pd.DataFrame({"model": ["=m"], "setting": ["-s"], "neurons": [1], "@task": [0.5]})
    content = ResultsTable(frame, pd.DataFrame({"@task": [0.1]})).to_csv()
    assert not dangerous(content) and cells(content)[3:5] == ["'@task", "'@task se"]


def test_commands_write_names_that_lead_nowhere_else(tmp_path):
    from culnig_tl.cli.output import show

    class Found:
        def tables(self):
            return {"sweep ../../x": pd.DataFrame({"a": [1]})}

    show(Found(), tmp_path / "deep" / "out")
    assert [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.csv")] == [
        "deep/out/sweep %2E%2E%2F%2E%2E%2Fx.csv"
    ]


def test_tables_are_written_in_one_place():
    """In `io.csv_of`; nothing else in the package makes CSV or Excel files."""
    found = []
    for path in Path(culnig_tl.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in (
                "to_csv",
                "to_excel",
                "writer",
                "DictWriter",
            ):
                found.append((path.name, node.attr))
    assert [name for name, attr in found if attr != "to_csv"] == []
    own = Path(io.__file__).read_text(encoding="utf-8")
    assert {name for name, _ in found} == {"io.py"} and own.count(".to_csv(") == len(found)


def test_a_command_that_cannot_save_its_effects_says_so_first():
    with pytest.raises(culnig_tl.errors.ScoreError, match=r"out\.txt: exact effects are saved as"):
        invoked("truth", "-o", "out.txt")
