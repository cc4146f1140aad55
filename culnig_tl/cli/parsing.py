"""A command's options, from its function: tyro reads the parameters, their types, defaults and docstrings."""

from __future__ import annotations

import functools
import inspect
import io
import re
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, Union, get_args, get_origin

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from ..errors import CulnigError

F = TypeVar("F", bound=Callable[..., None])
Positional = tyro.conf.Positional
Output: TypeAlias = Annotated[Path, tyro.conf.arg(aliases=["-o"])]
"""A file to write."""
MaybeOutput: TypeAlias = Annotated[Path | None, tyro.conf.arg(aliases=["-o"])]

_CONFIG = (
    tyro.conf.OmitArgPrefixes,
    tyro.conf.FlagCreatePairsOff,
    tyro.conf.HelptextFromCommentsOff,
    tyro.conf.PositionalMetavarFromFieldName,
)
_RULES = ConstructorRegistry()
_METAVARS: dict[Any, str] = {int: "N", float: "X", str: "TEXT", Path: "PATH"}
_IN_WORDS: dict[Any, str] = {int: "a whole number", float: "a number", NoneType: "none"}


def parse(function: Callable[..., None], words: Sequence[str], name: str, example: str) -> Callable[[], None]:
    """What is left to be called, once the words are understood. `--help` prints, with the example, and raises
    `SystemExit(0)`.

    Raises:
        CulnigError: words that the command does not understand; the message says what it takes.
    """

    @functools.wraps(function)
    def bound(*args: Any, **kwargs: Any) -> Callable[[], None]:
        return functools.partial(function, *args, **kwargs)

    defaults = getattr(function, "defaults", lambda words: {})(words)
    command = functools.partial(bound, **defaults) if defaults else bound
    about = (inspect.getdoc(function) or "").partition("\n\nArgs:")[0]
    about = "\n\n".join(" ".join(part.split()) for part in about.split("\n\n"))
    how: dict[str, Any] = {"description": f"{about}\n\nExample: {example}"}
    how |= {"config": _CONFIG, "registry": _RULES}
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            return tyro.cli(command, prog=f"culnig-tl {name}", args=words, **how)
    except SystemExit as end:
        if end.code:
            raise CulnigError(f"{_one_line(said.getvalue())}; see culnig-tl {name} --help") from None
        raise


def defaults_from(find: Callable[[Sequence[str]], dict[str, Any]]) -> Callable[[F], F]:
    """For a command whose defaults depend on the words: `find` takes them and returns defaults by
    parameter."""

    def mark(function: F) -> F:
        setattr(function, "defaults", find)  # noqa: B010 (pyright knows no attributes of functions)
        return function

    return mark


def given(words: Sequence[str], option: str) -> str | None:
    """The value that follows an option, before anything is parsed; None where it is not among the words."""
    for word, following in zip(words, [*words[1:], None]):
        if word == option:
            return following
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return None


@_RULES.primitive_rule
def _plain(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """One value: a number, text, a path, one of several words, or `none` where the type allows it."""
    kinds = get_args(info.type) if get_origin(info.type) in (Union, UnionType) else (info.type,)
    if not all(kind in (*_METAVARS, NoneType) or get_origin(kind) is Literal for kind in kinds):
        return None
    shown = "|".join(_shown(kind) for kind in kinds if kind is not NoneType)
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=shown,
        instance_from_str=lambda texts: _value(texts[0], kinds),
        is_instance=lambda value: any(
            value in get_args(kind) if get_origin(kind) is Literal else isinstance(value, kind)
            for kind in kinds
        ),
        str_from_instance=lambda value: ["none" if value is None else str(value)],
    )


@_RULES.primitive_rule
def _comma_separated(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Several values in one word: a,b,c; `none` for no value."""
    arguments = get_args(info.type)
    if get_origin(info.type) is not tuple or arguments[1:] != (...,) or Positional in info.markers:
        return None
    kind: Any = arguments[0]
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{_METAVARS[kind]},...",
        instance_from_str=lambda texts: tuple(
            _value(text.strip(), (kind,)) for text in texts[0].split(",") if text.strip() not in ("", "none")
        ),
        is_instance=lambda value: isinstance(value, tuple) and all(isinstance(part, kind) for part in value),
        str_from_instance=lambda value: [",".join(map(str, value)) or "none"],
    )


def _shown(kind: Any) -> str:
    return _METAVARS[kind] if kind in _METAVARS else "|".join(map(str, get_args(kind)))


def _value(text: str, kinds: Sequence[Any]) -> Any:
    """The first of these kinds that the text can be. Raises `ValueError`, which says what it could be."""
    for kind in sorted(kinds, key=lambda kind: kind is not NoneType):
        if kind is NoneType:
            if text.lower() == "none":
                return None
        elif get_origin(kind) is Literal:
            if text in get_args(kind):
                return text
        else:
            try:
                return kind(text)
            except ValueError:
                continue
    wanted = [word for kind in kinds for word in ([_IN_WORDS[kind]] if kind in _IN_WORDS else get_args(kind))]
    *rest, last = wanted
    raise ValueError(f"expected {', '.join(rest)}{' or ' if rest else ''}{last}, not {text!r}")


def _one_line(box: str) -> str:
    """What tyro says in a box, without the box and its title, the options' help, and the advice to look at
    all of it."""
    sections: list[list[str]] = [[]]
    for line in re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines():
        text = line.strip("│╭╮╰╯")[1:].rstrip()
        if re.search("─{3}|-{3}", line):  # lines of a box, where the terminal has them
            sections.append([])
        elif text and not text.startswith(" " * 8):
            sections[-1].append(text.strip())
    said = [part for part in sections[1:] if part and not part[0].startswith(("Argument help", "For full"))]
    text = "; ".join(re.sub(r"(?<!\.)\.$", "", " ".join(part)) for part in said)
    return text.removeprefix("Error parsing ")
