"""Pages that MkDocs makes from the package itself: one per module, one per kind of error, and one of all
commands.

A new module, command or kind of error appears by itself, and so does a new page beside `index.md`. A kind of
error that has a page in ``docs/errors`` keeps it; below it are listed the messages that the package can
raise.
"""

from __future__ import annotations

import ast
import html
import io
import os
import re
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "culnig_tl"
HIDDEN = {"__main__", "cli"}
"""Not on API pages: the command line has a page of its own."""
WIDTH = "100"
"""Columns of the commands' help."""
_SENTENCE = re.compile(r"(?<=[.?!]) (?=[A-Z`])")
"""Between two sentences."""


def on_config(config: Any) -> Any:
    """Appends the generated pages to the navigation."""
    api: list[Any] = ["api/index.md"]
    for name in _modules():
        *groups, _ = name.split(".")
        page = {name: f"api/{name}.md"}
        if not groups:
            api.append(page)
        else:
            section = next(
                (
                    entry[groups[0]]
                    for entry in api
                    if isinstance(entry, dict) and isinstance(entry.get(groups[0]), list)
                ),
                None,
            )
            if section is None:
                section = []
                api.append({groups[0]: section})
            section.append(page)
    errors: list[Any] = ["errors/index.md", *({name: f"errors/{name}.md"} for name in _errors())]
    named = {page for entry in config.nav for page in entry.values()}
    more = [
        {_heading(path): path.name} for path in sorted((ROOT / "docs").glob("*.md")) if path.name not in named
    ]
    config.nav = [*config.nav, *more, {"Commands": "commands.md"}, {"Errors": errors}, {"API": api}]
    return config


def _heading(path: Path) -> str:
    """The first heading of a page."""
    return next(
        (line[2:].strip() for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("# ")),
        path.stem,
    )


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages."""
    modules, errors = _modules(), _errors()
    made = {"commands.md": _commands(), "api/index.md": _index(modules)}
    made |= {f"api/{name}.md": f"# culnig_tl.{name}\n\n::: culnig_tl.{name}\n" for name in modules}
    messages = list(_messages())
    for name, about in errors.items():
        own = ROOT / "docs" / "errors" / f"{name}.md"
        text = own.read_text(encoding="utf-8") if own.is_file() else f"# {name}\n\n{about}\n"
        made[f"errors/{name}.md"] = f"{text}\n{_listed([m for m in messages if m[0] == name])}"
    for path, content in made.items():
        known = files.get_file_from_path(path)
        if known is not None:
            files.remove(known)
        files.append(File.generated(config, path, content=content))
    return files


def _modules() -> dict[str, str]:
    """Dotted name below the package -> first sentence of its docstring, in alphabetical order, packages
    last."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if (
            parts[0] in HIDDEN
            or any(part.startswith("_") and part != "__init__" for part in parts)
            or parts == ("__init__",)
            or not path.stat().st_size  # an empty __init__.py
        ):
            continue
        name = ".".join(part for part in parts if part != "__init__")
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        found[name] = _SENTENCE.split(" ".join(text.split("\n\n")[0].split()))[0]
    packages = {name.split(".")[0] for name in found if "." in name}
    return dict(sorted(found.items(), key=lambda item: (item[0].split(".")[0] in packages, item[0])))


def _index(modules: dict[str, str]) -> str:
    rows = "\n".join(
        f"| [`culnig_tl.{name}`]({name}.md) | {html.escape(about)} |" for name, about in modules.items()
    )
    public = "\n".join(
        f"| `{'.'.join(('ctl', name))}` | [`culnig_tl.{module}`]({module}.md) |"
        for name, module in _public().items()
    )
    return (
        "# API\n\nThe public names, after `import culnig_tl as ctl`. Other names are imported from their"
        f" module.\n\n| name | module |\n|---|---|\n{public}\n\n## Modules\n\n| module | what it is for"
        f" |\n|---|---|\n{rows}\n"
    )


def _public() -> dict[str, str]:
    """Public name -> module it is defined in, both below the package, from the lists of lazily imported
    names."""
    found = {}
    for stub in sorted(PACKAGE.rglob("__init__.pyi")):
        inside = stub.parent.relative_to(PACKAGE).parts
        for node in ast.parse(stub.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    module = (*inside, node.module or alias.name)
                    found[".".join((*inside, alias.name))] = ".".join(module)
    return dict(sorted(found.items(), key=lambda item: ("." in item[0], item[0])))


def _errors() -> dict[str, str]:
    """Kind of error -> docstring."""
    tree = ast.parse((PACKAGE / "errors.py").read_text(encoding="utf-8"))
    return {node.name: ast.get_docstring(node) or "" for node in tree.body if isinstance(node, ast.ClassDef)}


def _messages() -> Iterator[tuple[str, str, str]]:
    """(kind, module, message) of every error that is raised with its own message; "…" stands for what the
    message names."""
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Raise)
                and isinstance(node.exc, ast.Call)
                and isinstance(node.exc.func, ast.Name)
                and node.exc.args
            ):
                text = _words(node.exc.args[0])
                if text:
                    yield node.exc.func.id, module, text


def _words(node: ast.expr) -> str:
    """A message as it is in the source; "" where it is made elsewhere."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        words = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
        return "".join(map(str, words)) if any(word != "…" for word in words) else ""
    if isinstance(node, ast.IfExp):
        return " / ".join(filter(None, (_words(node.body), _words(node.orelse))))
    if isinstance(node, ast.BinOp):
        return _words(node.left) + _words(node.right)
    return ""


def _listed(messages: list[tuple[str, str, str]]) -> str:
    if not messages:
        return ""
    rows = "\n".join(
        f"| {_cell(text)} | `{module}` |"
        for _, module, text in sorted({(kind, m, t) for kind, m, t in messages})
    )
    return (
        "## Every message\n\nAs in the source; … stands for what the message names.\n\n| message | raised in"
        f" |\n|---|---|\n{rows}\n"
    )


def _cell(text: str) -> str:
    """Text, escaped for a table cell in Markdown."""
    return html.escape(" ".join(text.split()), quote=False).translate(
        {ord(c): f"\\{c}" for c in "\\`*_{}[]|#"}
    )


def _commands() -> str:
    """The command line, as its own help prints it."""
    from culnig_tl.cli import COMMANDS, overview

    parts = ["# Commands", f"```text\n{overview()}\n```"]
    for commands in COMMANDS.values():
        parts += [f"## culnig-tl {name}\n\n```text\n{_help(name)}\n```" for name in commands]
    return "\n\n".join(parts) + "\n"


def _help(command: str) -> str:
    """What `culnig-tl COMMAND --help` prints."""
    from culnig_tl.cli import run_command

    printed = io.StringIO()
    with patch.dict(os.environ, COLUMNS=WIDTH), redirect_stdout(printed), suppress(SystemExit):
        run_command([*command.split(), "--help"])
    return "\n".join(line.rstrip() for line in printed.getvalue().strip().splitlines())
