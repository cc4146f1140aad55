"""Pages that MkDocs makes from the package itself: one a module, one a command, one a kind of error.

A module, command or error that is added gets its page by itself, a page beside `index.md` its place in the navigation. A kind of error with a page of its own in ``docs/errors``
keeps it; the messages that the package can raise are listed below it.
"""

from __future__ import annotations

import ast
import html
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "culnig_tl"
HIDDEN = {"__main__", "commands", "cli"}
"""Not on API pages: the command line has pages of its own."""


def on_config(config: Any) -> Any:
    """Appends what is made here to the navigation."""
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
    """Dotted name below the package -> first line of its docstring, in the order of the alphabet, packages last."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if (
            parts[0] in HIDDEN
            or any(part.startswith("_") and part != "__init__" for part in parts)
            or parts == ("__init__",)
        ):
            continue
        name = ".".join(part for part in parts if part != "__init__")
        found[name] = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")[0]
    packages = {name.split(".")[0] for name in found if "." in name}
    return dict(sorted(found.items(), key=lambda item: (item[0].split(".")[0] in packages, item[0])))


def _index(modules: dict[str, str]) -> str:
    rows = "\n".join(
        f"| [`culnig_tl.{name}`]({name}.md) | {html.escape(about)} |" for name, about in modules.items()
    )
    return (
        "# API\n\nEverything that is public can be imported from `culnig_tl` itself: `import culnig_tl as ctl`.\n\n"
        f"{_public()}\n\n## Modules\n\n| module | what it is for |\n|---|---|\n{rows}\n"
    )


def _public() -> str:
    """The public names, from the package's own list."""
    import culnig_tl

    rows = (
        f"| `ctl.{name}` | [`culnig_tl.{module}`]({module}.md) |"
        for name, module in sorted(culnig_tl._PUBLIC.items())
    )
    return "| name | lives in |\n|---|---|\n" + "\n".join(rows)


def _errors() -> dict[str, str]:
    """Kind of error -> docstring."""
    tree = ast.parse((PACKAGE / "errors.py").read_text(encoding="utf-8"))
    return {node.name: ast.get_docstring(node) or "" for node in tree.body if isinstance(node, ast.ClassDef)}


def _messages() -> Iterator[tuple[str, str, str]]:
    """(kind, module, message) of every error that is raised with a message of its own; blanks stand in braces."""
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
    """A message as its source has it; "" where it is made elsewhere."""
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
    return f"## Every message\n\nAs the source has them; … is what the message names.\n\n| message | raised in |\n|---|---|\n{rows}\n"


def _cell(text: str) -> str:
    """Text that Markdown leaves alone."""
    return html.escape(" ".join(text.split()), quote=False).translate(
        {ord(c): f"\\{c}" for c in "\\`*_{}[]|#"}
    )


def _commands() -> str:
    """The command line, from its own help."""
    import typer

    from culnig_tl.cli import app

    parts = ["# Commands\n\n`culnig-tl COMMAND --help` prints the same."]
    root: Any = typer.main.get_command(app)
    for name, command in root.commands.items():
        parts += _command(f"culnig-tl {name}", command)
    return "\n\n".join(parts) + "\n"


def _command(name: str, command: Any) -> list[str]:
    parts = [f"## {name}", _cell(command.help or "")]
    options = [parameter for parameter in command.params if parameter.name != "help"]
    if options:
        rows = "\n".join(
            f"| {'`' + ', '.join(o.opts) + '`' if o.param_type_name == 'option' else o.name.upper()} | {_cell(getattr(o, 'help', None) or '')} |"
            for o in options
        )
        parts.append(f"| option | |\n|---|---|\n{rows}")
    for below, nested in getattr(command, "commands", {}).items():
        parts += _command(f"{name} {below}", nested)
    return parts
