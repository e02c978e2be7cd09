"""Generate docs/reference/ from the code: ``python tests/tools/reference.py [--check] FOLDER``.

The pages say what docstrings and signatures say, so they are never edited, and a test fails where
they are old.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

import hardpoint
from conformance_pages import checks_page, matrix_page
from docstring_markdown import inline, markdown, summary
from hardpoint import errors, hookspecs
from hardpoint.cli import COMMANDS, LazyCommand
from hardpoint.cli.output import EXIT_CODES

_POSITIONAL, _KEYWORD = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
NOTE = "Generated from the code by `make docs`; do not edit."


def callable_text(name: str, function: Any, *, method: bool = False) -> str:
    """A signature as one writes it: on one line where it fits, else a parameter a line."""
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())[1 if method else 0 :]
    words: list[str] = []
    kinds = [parameter.kind for parameter in parameters]
    for number, parameter in enumerate(parameters):
        if parameter.kind is parameter.KEYWORD_ONLY and (
            number == 0
            or kinds[number - 1] not in {parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL}
        ):
            words.append("*")
        words.append(_parameter(parameter))
    answer = signature.return_annotation
    returns = "" if answer is signature.empty else f" -> {_type(answer)}"
    line = f"{name}({', '.join(words)}){returns}"
    if len(line) <= 96:
        return line
    return f"{name}(\n" + "".join(f"    {word},\n" for word in words) + f"){returns}"


def _parameter(parameter: inspect.Parameter) -> str:
    positional, keyword = (kind is parameter.kind for kind in (_POSITIONAL, _KEYWORD))
    stars = "*" if positional else "**" if keyword else ""
    typed = parameter.annotation is not parameter.empty
    text = f"{stars}{parameter.name}{': ' + _type(parameter.annotation) if typed else ''}"
    if parameter.default is parameter.empty:
        return text
    default = repr(parameter.default)
    if default == "<factory>":  # a dataclass makes it anew for each instance
        default = "..."
    return f"{text} = {default}" if typed else f"{text}={default}"


def _type(annotation: object) -> str:
    if isinstance(annotation, str):
        return annotation.strip("'\"")
    return getattr(annotation, "__name__", repr(annotation))


def block(code: str) -> str:
    """A fenced block of Python."""
    return f"```python\n{code}\n```"


def by_module() -> dict[str, list[str]]:
    """The public names by the module that each lives in."""
    found: dict[str, list[str]] = {}
    for name, module in hardpoint._HOME.items():
        found.setdefault(module, []).append(name)
    return found


def python_page() -> str:
    """Every public name by the module that it lives in, but for the errors."""
    parts = [
        "# The Python API",
        NOTE,
        "All of these are names of `hardpoint` itself, imported on first use.",
    ]
    for module, names in by_module().items():
        if module == errors.__name__:
            continue
        parts.append(f"## {module.removeprefix('hardpoint.')}")
        parts.append(markdown(sys.modules[_imported(module)].__doc__ or ""))
        for name in names:
            parts += _entry(name, getattr(hardpoint, name))
    return "\n\n".join(parts) + "\n"


def _imported(module: str) -> str:
    __import__(module)
    return module


def _entry(name: str, value: Any) -> Iterator[str]:
    yield f"### `{name}`"
    if inspect.isfunction(value):
        yield block(callable_text(name, value))
        yield markdown(value.__doc__ or "")
    elif not inspect.isclass(value):  # a type alias, or pluggy's marker
        alias = getattr(value, "__args__", None)
        kind = f"Literal[{', '.join(map(repr, alias))}]" if alias else type(value).__name__
        yield block(f"{name}: {kind}" if not alias else f"{name} = {kind}")
    else:
        if not inspect.isabstract(value):
            yield block(callable_text(name, value))
        yield markdown(value.__doc__ or "")
        yield from _members(value)


def _members(cls: type) -> Iterator[str]:
    """The public methods and properties that the class itself defines."""
    own = {field.name for field in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else ()
    for name, member in vars(cls).items():
        if (name.startswith("_") and name != "__call__") or name in own:
            continue
        abstract = " *(abstract)*" if getattr(member, "__isabstractmethod__", False) else ""
        if isinstance(member, property):
            answer = inspect.signature(member.fget).return_annotation if member.fget else ""
            yield f"#### `{cls.__name__}.{name}`{abstract}\n\n{block(f'{name}: {_type(answer)}')}"
            yield markdown(member.__doc__ or "")
            continue
        function = inspect.unwrap(getattr(member, "__func__", member))
        if inspect.isfunction(function):
            method = not isinstance(member, staticmethod)
            code = callable_text(name, function, method=method)
            yield f"#### `{cls.__name__}.{name}`{abstract}\n\n{block(code)}"
            yield markdown(function.__doc__ or "")


def hooks_page() -> str:
    """Every hook spec."""
    parts = [
        "# Hooks",
        NOTE,
        "What a plugin's module may define, marked with `hardpoint.hookimpl`. Three hooks a kind, "
        "called on one named provider at a time; `hardpoint_event` is told to every observer.",
    ]
    for spec in hookspecs.SPECS:
        parts += [f"## {spec.__name__.removesuffix('Spec')}", markdown(spec.__doc__ or "")]
        for name, function in vars(spec).items():
            if name.startswith("hardpoint_"):
                code = callable_text(name, function, method=True)
                parts += [f"### `{name}`", block(code), markdown(function.__doc__ or "")]
    return "\n\n".join(parts) + "\n"


def errors_page() -> str:
    """Every error and warning."""
    rows = ["| name | is a | when |", "|---|---|---|"]
    others: list[str] = []
    for name in errors.__all__:
        value = getattr(errors, name)
        if not inspect.isclass(value):
            others += _entry(name, value)
        else:
            base = value.__bases__[0].__name__
            rows.append(f"| `{name}` | `{base}` | {summary(value.__doc__ or '')} |")
    base_text = markdown(errors.HardpointError.__doc__ or "")
    return (
        "\n\n".join(
            [
                "# Errors and warnings",
                NOTE,
                "\n".join(rows),
                "## HardpointError",
                base_text,
                *others,
            ]
        )
        + "\n"
    )


def command_page() -> str:
    """Every command, with its arguments, options and exit codes."""
    parts = ["# The command line", NOTE]
    rows = [f"| `hardpoint {name}` | {text} |" for name, (_, text) in COMMANDS.items()]
    parts.append("\n".join(["| command | what it does |", "|---|---|", *rows]))
    codes = [f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items()]
    parts.append("\n".join(["| exit code | means |", "|---|---|", *codes]))
    for name, known in COMMANDS.items():
        parts += _command(f"hardpoint {name}", LazyCommand(name, *known).load())
    return "\n\n".join(parts) + "\n"


def _command(path: str, command: click.Command) -> Iterator[str]:
    arguments = [one for one in command.params if isinstance(one, click.Argument)]
    options = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
    usage = [path, *(_argument(one) for one in arguments), *(["[OPTIONS]"] if options else [])]
    if isinstance(command, click.Group):
        usage.append("COMMAND")
    yield f"## `{path}`"
    yield f"```sh\n{' '.join(usage)}\n```"
    yield inline(inspect.cleandoc(command.help or "").replace("\b\n", ""))
    if options:
        rows = [f"| `{_option(one)}` | {_cell(one)} |" for one in options]
        yield "\n".join(["| option | what it does |", "|---|---|", *rows])
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from _command(f"{path} {name}", inner)


def _argument(argument: click.Argument) -> str:
    name = argument.metavar or (argument.name or "").upper()
    if argument.metavar is None and argument.nargs == -1:
        name += "..."
    return name if argument.required or name.startswith("[") else f"[{name}]"


def _option(option: click.Option) -> str:
    names = ", ".join([*option.opts, *option.secondary_opts])
    if option.is_flag or option.count:
        return names
    choices = getattr(option.type, "choices", None)
    kind = "|".join(map(str, choices)) if choices else option.metavar or option.type.name.upper()
    return f"{names} {kind}"


def _cell(option: click.Option) -> str:
    default = option.default
    plain = isinstance(default, str | int | float) and not isinstance(default, bool)
    words = [inline(option.help or "")]
    if option.required:
        words.append("Required.")
    elif plain and default != "" and not option.is_flag:
        words.append(f"Default: `{default}`.")
    if option.multiple:
        words.append("May be given several times.")
    return " ".join(words).replace("|", r"\|")


def pages() -> dict[str, str]:
    """File name -> text."""
    index = [
        "# Reference",
        NOTE,
        "- [The Python API](python.md): every public name of `hardpoint`\n"
        "- [Hooks](hooks.md): what a plugin implements\n"
        "- [Errors and warnings](errors.md)\n"
        "- [The command line](cli.md): every command, option and exit code\n"
        "- [The checks of the conformance kit](checks.md)\n"
        "- [The compatibility matrix](compatibility.md): what the kit found on our own providers",
    ]
    return {
        "README.md": "\n\n".join(index) + "\n",
        "python.md": python_page(),
        "hooks.md": hooks_page(),
        "errors.md": errors_page(),
        "cli.md": command_page(),
        "checks.md": checks_page(NOTE),
        "compatibility.md": matrix_page(NOTE),
    }


def main() -> int:
    """Write the pages, or say which are old."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where one is old")
    options = parser.parse_args()
    folder: Path = options.folder
    old = []
    for name, text in pages().items():
        path = folder / name
        if path.is_file() and path.read_text("utf-8") == text:
            continue
        old.append(path.as_posix())
        if not options.check:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
    if options.check and old:
        print(f"old: {', '.join(old)}\n  remedy: run `make docs` and commit what it writes")
        return 1
    print(f"{folder}: {len(old)} pages written" if old else f"{folder}: up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main())
