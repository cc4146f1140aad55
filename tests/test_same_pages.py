"""Pages and figures of the same study are the same bytes, also from two processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from culnig_tl.figures.gallery import figures_of
from culnig_tl.pages.page import write_figures
from culnig_tl.pages.report import write_report

from .studies import CASES, made_study

SCRIPT = """
import sys
from pathlib import Path
from culnig_tl.analyses.checkpoints import compare_checkpoints
from culnig_tl.figures.export import save_figure
from culnig_tl.figures.gallery import figures_of
from culnig_tl.pages.atlas import write_atlas
from culnig_tl.pages.comparison_page import write_comparison
from culnig_tl.pages.page import write_figures
from culnig_tl.pages.report import write_report
from tests.studies import CASES, made_study, small_study

out = Path(sys.argv[1])
study, other = (made_study(**CASES["shown"], seed=seed) for seed in (0, 1))
write_report(study, out / "report.html")
write_figures(figures_of(study), out / "figures")
write_comparison(compare_checkpoints({"a": study, "b": other}), out / "compare.html")
save_figure(figures_of(study)["drops"], out / "drops.html")
how = {"limit": 8, "alone": 2, "top": 3, "device": "cpu", "progress": False}
write_atlas(small_study(sys.argv[2]), out / "atlas", **how)
"""


def test_a_report_and_figures_of_the_same_study_are_the_same_bytes(tmp_path):
    for name in ("1", "2"):
        study = made_study(**CASES["shown"])
        write_report(study, tmp_path / name / "report.html")
        write_figures(figures_of(study), tmp_path / name / "figures")
    one, two = (written(tmp_path / name) for name in ("1", "2"))
    assert one == two and len(one) >= 9


@pytest.mark.slow
def test_pages_of_the_same_study_are_the_same_bytes_in_two_processes(checkpoints, tmp_path):
    """Sets of names come in another order in each process."""
    (tmp_path / "script.py").write_text(SCRIPT)
    started = [
        subprocess.Popen(
            [sys.executable, str(tmp_path / "script.py"), str(tmp_path / seed), str(checkpoints("llama"))],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.getcwd(), "HF_HUB_OFFLINE": "1"},
        )
        for seed in ("1", "2")
    ]
    assert [process.wait(timeout=300) for process in started] == [0, 0]
    one, two = (written(tmp_path / seed) for seed in ("1", "2"))
    assert len(one) >= 16 and {"report.html", "compare.html", "atlas/index.html"} <= set(one)
    assert [name for name in one if one[name] != two.get(name)] == [] and set(one) == set(two)


def written(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
