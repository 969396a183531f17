"""The command `rollout`: its commands, and what becomes of their failures."""

import sys
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from rollout.cli import (
    bars,
    check,
    demo_command,
    deploy,
    failures,
    freeze,
    halts,
    hosts,
    init,
    judge,
    output,
    parts,
    plan,
    show,
    status,
    stop,
    why,
)
from rollout.cli import verb as verbs
from rollout.cli.call import Call
from rollout.errors import RolloutError


class Commands(TyperGroup):
    """All commands. Every failure goes through the one table in `failures`."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> NoReturn:
        """Run one command and leave with its exit code."""
        del standalone_mode, windows_expand_args
        words = list(sys.argv[1:] if args is None else args)
        as_json = "--json" in words
        try:
            code = super().main(words, prog_name, complete_var, standalone_mode=False, **extra)
        except RolloutError as error:
            code = failures.tell(error, as_json=as_json)
        except Exception as error:  # noqa: BLE001  # the last door: no traceback for people
            code = _other(error, as_json=as_json)
        sys.exit(code or 0)


def _other(error: Exception, *, as_json: bool) -> int:
    usage = getattr(error, "format_message", None)  # Typer's own errors, whose classes are private to it
    if usage is None:
        return failures.tell_unexpected(error, as_json=as_json)
    context = getattr(error, "ctx", None)
    remedy = f"{context.command_path} --help" if context else "rollout --help"
    return failures.tell_usage(usage(), remedy, as_json=as_json)


app = typer.Typer(
    name="rollout",
    cls=Commands,
    help="Ships every good commit to every host you can ssh to, and keeps every bad one from more than a handful of them.",
    no_args_is_help=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(*, wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        try:
            output.say(f"rollout {metadata.version('rollout')}")
        except metadata.PackageNotFoundError:
            output.say("rollout, from a checkout that is not installed")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def everywhere(
    context: typer.Context,
    *,
    config: verbs.Config = None,
    app_name: verbs.App = None,
    as_json: verbs.Json = False,
    version: Annotated[bool, typer.Option("--version", help="Print it.", is_eager=True)] = False,
) -> None:
    """Options that may stand before the command as well as behind it."""
    _version(wanted=version)
    context.obj = Call(config, app_name, as_json)
    if context.invoked_subcommand is None:
        output.say(context.get_help())


START, SHIP, LOOK, TROUBLE, PARTS = "Begin", "Ship", "Look", "When something is wrong", "One part each"
SAY = "--reason 'slow since 14:00'"

for _panel, _command, _examples in (
    (START, init.init, ("rollout init", "rollout init --config /etc/rollout/rollout.toml")),
    (START, check.check, ("rollout check", "rollout check --app shop --json")),
    (START, parts.up, ("rollout up", "rollout up --config /etc/rollout/rollout.toml")),
    (START, demo_command.demo, ("rollout demo", "rollout demo --keep")),
    (
        SHIP,
        deploy.deploy,
        (
            "rollout deploy",
            "rollout deploy 1a2b3c4 --wait --timeout 30m",
            "rollout deploy 1a2b3c4 --now --reason 'mends the login'",
        ),
    ),
    (
        SHIP,
        halts.resume,
        ("rollout resume 7 --wait", "rollout resume 7 --accept-failed --reason 'web003 is being replaced'"),
    ),
    (SHIP, halts.retry, ("rollout retry 7", "rollout retry 7 --wait --timeout 20m")),
    (LOOK, status.status, ("rollout status", "rollout status 7 --watch")),
    (LOOK, show.show, ("rollout show 7", "rollout show 7 --json")),
    (LOOK, show.log, ("rollout log 7", "rollout log 7 --host web003 --follow", "rollout log 1a2b3c4d")),
    (
        LOOK,
        show.history,
        ("rollout history", "rollout history --limit 100 --json", "rollout history --deliveries"),
    ),
    (
        LOOK,
        judge.judge,
        (
            "rollout judge intervals.jsonl",
            "rollout judge intervals.jsonl --canary web001 --minimum-good 99% --json",
            "rollout judge --last 50 --minimum-good 99%",
        ),
    ),
    (LOOK, plan.plan, ("rollout plan", "rollout plan 1a2b3c4 --json")),
    (LOOK, why.why, ("rollout why", "rollout why 1a2b3c4", "rollout why main --json")),
    (LOOK, hosts.hosts, ("rollout hosts", "rollout hosts --verify")),
    (TROUBLE, stop.stop, ("rollout stop", f"rollout stop 7 {SAY} --wait", "rollout stop 7 --keep")),
    (TROUBLE, stop.rollback, (f"rollout rollback {SAY}", "rollout rollback --to 1a2b3c4 --wait")),
    (TROUBLE, halts.exclude, ("rollout exclude web003 --reason 'bad disk'",)),
    (TROUBLE, halts.include, ("rollout include web003",)),
    (
        TROUBLE,
        freeze.freeze,
        (
            "rollout freeze --reason 'the sale is on' --until 18:00",
            "rollout freeze --reason 'audit' --until 3d",
        ),
    ),
    (TROUBLE, freeze.unfreeze, ("rollout unfreeze",)),
    (TROUBLE, bars.bar, ("rollout bar 1a2b3c4 --reason 'leaks memory'",)),
    (TROUBLE, bars.unbar, ("rollout unbar 1a2b3c4",)),
    (PARTS, parts.web, ("rollout web --config /etc/rollout/rollout.toml",)),
    (PARTS, parts.worker, ("rollout worker control", "rollout worker hosts")),
    (PARTS, parts.beat, ("rollout beat",)),
    (PARTS, parts.flower, ("rollout flower",)),
):
    verbs.add(app, _panel, _command, *_examples)


def run() -> None:
    """The entry point."""
    app(prog_name="rollout")
