"""Which hosts an app has: those that rollout.toml names, or those that an inventory program prints."""

from collections.abc import Mapping
from typing import Any

from rollout.config import members as fleet
from rollout.config.deploy_file import AppConfig, Config
from rollout.domain import template
from rollout.domain.model import Member
from rollout.errors import ConfigError
from rollout.fleet import ansible
from rollout.fleet.inventory_program import Program

TIMEOUT_S = 30.0
ADDRESS = ("ansible_host", "ansible_ssh_host")
PORT = ("ansible_port", "ansible_ssh_port")
USER = ("ansible_user", "ansible_ssh_user")


def members(config: AppConfig, *, timeout_s: float = TIMEOUT_S) -> list[Member]:
    """The app's fleet as it is now, in order; ConfigError when it is empty, doubled or cannot be read.

    Of an inventory's variables only those are kept that the app's path and commands mention: the others may be secrets.
    """
    if config.fleet.inventory is None:
        found = fleet.configured(config)
    else:
        found = _from_inventory(config, Program(config.fleet.inventory, timeout_s))
    at = f"apps.{config.name}"
    problems = [f"{at}.fleet: {text}" for text in fleet.clashes(found)]
    problems += [f"{at}.canary.hosts: {text}" for text in fleet.canary_clashes(config, found)]
    problems += [f"{at}.fleet: {text}" for _, _, text in fleet.collisions({config.name: found})]
    if problems:
        raise ConfigError("\n".join(problems), remedy=f"edit [{at}.fleet], or what the inventory says")
    return found


def collisions(config: Config, *, timeout_s: float = TIMEOUT_S) -> list[str]:
    """Hosts whose releases would lie where another app's do; inventories included, which are not read with the file."""
    fleets = {name: members(app, timeout_s=timeout_s) for name, app in config.apps.items()}
    return [f"apps.{app}.fleet: {text}" for app, _, text in fleet.collisions(fleets)]


def _from_inventory(config: AppConfig, program: Program) -> list[Member]:
    try:
        found = ansible.hosts(program.json("--list"), lambda name: program.json("--host", name))
    except ValueError as error:
        raise program.wrong(f"printed what is no inventory: {error}") from error
    mentioned = _mentioned(config)
    return [_member(config, name, variables, mentioned, program) for name, variables in found.items()]


def _member(
    config: AppConfig, name: str, variables: Mapping[str, Any], mentioned: set[str], program: Program
) -> Member:
    try:
        return fleet.make(
            config,
            name,
            _first(variables, ADDRESS) or name,
            port=int(_first(variables, PORT) or config.fleet.port),
            user=_first(variables, USER) or None,
            variables={key: text for key in mentioned if (text := _text(variables.get(key)))},
        )
    except ValueError:
        raise program.wrong(f"gives host {name} a port that is no number") from None


def _mentioned(config: AppConfig) -> set[str]:
    texts = (config.release.path, config.release.restart, config.release.health, config.canary.log)
    return {name for text in texts for name in template.unknown(text, {"name": "", "address": ""})}


def _first(variables: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """The first of these variables that is there, as it is: what is wrong with it is for `make` to say."""
    return next((str(variables[name]) for name in names if variables.get(name) is not None), "")


def _text(given: object) -> str:
    """A scalar as a text; "" when there is none, or one that could be read as more than a word."""
    text = str(given).lower() if isinstance(given, bool) else str(given)
    scalar = isinstance(given, str | int | float)
    return text if scalar and len(text) <= 255 and template.VALUE.fullmatch(text) else ""
