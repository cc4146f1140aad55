"""The site: a page for every module, command and kind of error, links that lead somewhere, nothing
fetched."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import culnig_tl
from culnig_tl import errors

from .helpers import docs_module

ROOT = Path(__file__).parents[1]
pytest.importorskip("mkdocs", reason="the site needs mkdocs: pip install -e '.[docs]'")


@pytest.fixture(scope="module")
def hooks():
    return docs_module("hooks")


def test_every_public_name_is_listed_with_a_module_that_has_a_page(hooks):
    modules, public = hooks._modules(), hooks._public()
    names = {name for name in public if "." not in name}
    assert names | {"__version__"} == set(culnig_tl.__all__)
    assert {"analyses.threshold_sweep", "finetuning.finetune"} <= set(public)
    assert set(public.values()) <= set(modules)


def test_modules_say_what_they_are_for(hooks):
    modules = hooks._modules()
    assert not [name for name in modules if name.split(".")[0] in hooks.HIDDEN or "._" in name]
    assert all(modules.values())


def test_every_kind_of_error_has_a_page_that_says_what_to_do(hooks):
    kinds = [
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.CulnigError)
    ]
    assert list(hooks._errors()) == kinds
    index = (ROOT / "docs" / "errors" / "index.md").read_text(encoding="utf-8")
    for kind in kinds:
        page = ROOT / "docs" / "errors" / f"{kind}.md"
        assert page.is_file(), f"docs/errors/{kind}.md is missing: say what raises it and what to do"
        assert "what to do" in page.read_text(encoding="utf-8").lower(), kind
        assert kind == "CulnigError" or f"({kind}.md)" in index, kind


def test_messages_are_those_of_the_source(hooks):
    messages = set(hooks._messages())
    assert ("StudyError", "analyses.checkpoints", "compare two checkpoints or more, not …") in messages
    assert {kind for kind, _, _ in messages} >= {
        "TaskError",
        "ModelError",
        "PromptError",
        "ScoreError",
        "NeuronError",
        "StudyError",
    }
    listed = hooks._listed([("TaskError", "tasks", "a|b <script> *c* {x}")])
    assert "a\\|b &lt;script&gt; \\*c\\* \\{x\\}" in listed


def test_every_command_is_described(hooks):
    from culnig_tl.cli import COMMANDS

    text = hooks._commands()
    for commands in COMMANDS.values():
        for command in commands:
            assert f"## culnig-tl {command}\n" in text
    assert "--output-dir PATH" in text


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_or_a_network(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stderr
    for page in (tmp_path / "site").rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        fetched = re.findall(
            r'<(?:script|img|iframe|source)[^>]* src="https?:[^"]*"|<link[^>]* href="https?:[^"]*"[^>]*>',
            text,
        )
        assert not [tag for tag in fetched if "canonical" not in tag], page.name
    assert len(list((tmp_path / "site" / "api").glob("*.html"))) > 40
