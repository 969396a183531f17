"""`rollout init`: a commented rollout.toml to begin with."""

from pathlib import Path
from typing import Annotated

import typer

from rollout.cli import output
from rollout.cli.call import Call
from rollout.errors import ConfigError, Conflict

SECRET = "webhook.secret"  # noqa: S105  # the name of its file


def init(
    call: Call,
    *,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> int:
    """Write a commented rollout.toml, and a webhook secret beside it.

    Every key is in it, the optional ones commented out with their defaults. Exit code 4 when a file is there already.
    """
    from rollout.config import reference, secret_files

    path = (call.config_path or Path("rollout.toml")).expanduser().absolute()
    _write(path, reference.text(), force=force)
    secret = secret_files.create(path.parent / SECRET)
    if call.json:
        output.document({"file": str(path), "webhook_secret_file": str(secret) if secret else None})
        return 0
    output.say(f"wrote {path}" + (f" and {secret}" if secret else ""))
    output.say("next:")
    output.say("  1. edit it: repository, release.path, canary.log, fleet.hosts")
    output.say("  2. rollout check   looks at everything before anything is touched")
    output.say("  3. rollout up      runs everything on this machine")
    output.say(
        f"  4. let the git server send its pushes here, signed with the secret in {path.parent / SECRET}"
    )
    return 0


def _write(path: Path, text: str, *, force: bool) -> None:
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise Conflict(
            f"there is a file {path} already", remedy="edit it, or write over it with --force"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror}", remedy="check who may write there"
        ) from error
