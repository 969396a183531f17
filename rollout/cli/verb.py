"""How a function becomes a command: the options that every command has, its examples, and its exit code."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from rollout.cli import completion
from rollout.cli.call import Call

Command = Callable[..., int | None]
PANEL = "Everywhere"

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="rollout.toml; else $ROLLOUT_CONFIG, else here.",
        rich_help_panel=PANEL,
    ),
]
App = Annotated[
    str | None,
    typer.Option(
        "--app",
        metavar="NAME",
        help="Which app, when several are configured.",
        rich_help_panel=PANEL,
        autocompletion=completion.apps,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.", rich_help_panel=PANEL)]
EVERYWHERE: dict[str, Any] = {"config": (Config, None), "app": (App, None), "json": (Json, False)}


def add(app: typer.Typer, panel: str, function: Command, *examples: str) -> None:
    """Register a function whose first parameter is the Call, and which returns the exit code (None is 0)."""
    command = app.command(function.__name__, help=_help(function, examples), rich_help_panel=panel)
    command(_with_everywhere(function))


def merged(given: Call | None, config: Path | None, app: str | None, *, json: bool) -> Call:
    """What stood before the command, overruled by what stood behind it."""
    before = given or Call()
    return Call(config or before.config_path, app or before.app_name, json or before.json)


def _help(function: Callable[..., Any], examples: tuple[str, ...]) -> str:
    word = "Example" if len(examples) == 1 else "Examples"
    shown = "\n".join(f"  {example}" for example in examples)
    paragraphs = (inspect.getdoc(function) or "").split("\n\n")
    told = "\n\n".join(" ".join(one.split()) for one in paragraphs)
    return f"{told}\n\n\b\n{word}:\n{shown}"


def _with_everywhere(function: Command) -> Callable[..., int]:
    @functools.wraps(function)
    def command(context: typer.Context, **given: Any) -> int:
        everywhere = {key: given.pop(key) for key in EVERYWHERE}
        call = merged(context.obj, **everywhere)
        try:
            return function(call, **given) or 0
        finally:
            call.close()

    _, *own = inspect.signature(function, eval_str=True).parameters.values()
    shared = [
        inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for key, (kind, default) in EVERYWHERE.items()
    ]
    first = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    parameters = [first, *(one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own), *shared]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what Typer reads
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    return command
