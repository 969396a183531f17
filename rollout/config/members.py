"""From the entries of `[apps.X.fleet]` to the hosts of a fleet, and what makes a fleet unusable."""

import ipaddress
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches

from rollout.config import ranges
from rollout.config.app import AppConfig
from rollout.config.fields import HOST_NAME, USER
from rollout.config.fleet import Entry
from rollout.domain import template
from rollout.domain.model import Member
from rollout.errors import ConfigError

PATH = re.compile(r"(/[A-Za-z0-9._-]+)+")
ADDRESS = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,251}[A-Za-z0-9_.])?")
MOST_SHOWN = 5


def configured(app: AppConfig) -> list[Member]:
    """The hosts that rollout.toml itself names, in order; ConfigError at the first that is not usable."""
    return [host for entry in app.fleet.hosts for host in _members(app, entry)]


def make(
    app: AppConfig,
    name: str,
    address: str,
    *,
    port: int | None = None,
    user: str | None = None,
    variables: Mapping[str, str] | None = None,
) -> Member:
    """The host with its path filled in; ConfigError when its name, address, user, port or path is not usable."""
    if not HOST_NAME.fullmatch(name):
        raise ConfigError(f"the host name {name!r} has other characters than letters, digits and . _ : -")
    if not is_address(address):
        raise ConfigError(
            f"the address {address!r} of host {name} is neither a name nor an IP address",
            remedy="give the port as a key of its own: {name=…, address=…, port=…}" if ":" in address else "",
        )
    if user is not None and not USER.fullmatch(user):
        raise ConfigError(
            f"the user {user!r} of host {name} has other characters than letters, digits and . _ @ -"
        )
    if port is not None and not 1 <= port <= 65535:
        raise ConfigError(f"the port {port} of host {name} is not one from 1 to 65535")
    host = Member(
        name=name,
        address=address,
        port=app.fleet.port if port is None else port,
        user=user or app.fleet.user,
        variables=dict(variables or {}),
        path="",
    )
    return Member(host.name, host.address, host.port, host.user, host.variables, path_of(app, host))


def path_of(app: AppConfig, host: template.Named) -> str:
    """`release.path` on this host, without doubled and trailing slashes; ConfigError when it is not a safe path."""
    variables = template.variables_of(host)
    filled = template.fill(app.release.path, variables)
    path = posixpath.normpath(filled)
    if ".." in filled.split("/") or path.startswith("//") or not PATH.fullmatch(path):
        lacking = template.unknown(app.release.path, variables)
        why = (
            f"host {host.name} has no variable {lacking[0]}"
            if lacking
            else "only letters, digits and . _ - / are safe"
        )
        raise ConfigError(f"release.path is {filled!r} on host {host.name}: {why}")
    return path


def is_address(text: str) -> bool:
    """A DNS name or an IP address, in a form that no program takes for an option."""
    if ":" not in text:
        return bool(ADDRESS.fullmatch(text))
    try:
        return bool(ipaddress.IPv6Address(text))
    except ValueError:
        return False


def clashes(members: Sequence[Member]) -> Iterator[str]:
    """What is wrong with these hosts as one fleet: none at all, or names that are there twice."""
    if not members:
        yield "found no host, expected at least one"
    seen: dict[str, Member] = {}
    doubled: dict[str, tuple[Member, Member]] = {}
    for host in members:
        if host.name in seen:
            doubled.setdefault(host.name, (seen[host.name], host))
        seen[host.name] = host
    for name, (first, second) in list(doubled.items())[:MOST_SHOWN]:
        if first.address == second.address:
            yield f"the host {name} is there twice"
        else:
            yield (
                f"two hosts are named {name} ({first.address} and {second.address}); "
                f"name them yourself: {{name=…, address=…}}"
            )
    if len(doubled) > MOST_SHOWN:
        yield f"{len(doubled) - MOST_SHOWN} more host names are there twice"


def collisions(fleets: Mapping[str, Sequence[Member]]) -> Iterator[tuple[str, str, str]]:
    """(app, the other's app, text) for each host whose releases would lie where another's do: address, port and path are the same."""
    seen: dict[tuple[str, int, str], tuple[str, str]] = {}
    for app, members in fleets.items():
        for host in members:
            place = (host.address.casefold(), host.port, host.path)
            first_app, first = seen.setdefault(place, (app, host.name))
            if (first_app, first) != (app, host.name):
                other = first if first_app == app else f"{first} of app {first_app}"
                yield (
                    app,
                    first_app,
                    f"host {host.name} has the same address, port and path as {other}: {':'.join(map(str, place))}",
                )


def canary_clashes(app: AppConfig, hosts: Sequence[Member]) -> Iterator[str]:
    """What is wrong with `canary.hosts` for this fleet."""
    wanted = app.canary.hosts
    if isinstance(wanted, int):
        if wanted > len(hosts):
            yield f"found {wanted}, expected at most {len(hosts)}, the size of the fleet"
        return
    names = {host.name for host in hosts}
    for name in wanted:
        if name in names:
            continue
        meant = [host.name for host in hosts if host.address == name] or get_close_matches(name, names, n=1)
        known = ", ".join([host.name for host in hosts[:MOST_SHOWN]] + ["…"] * (len(hosts) > MOST_SHOWN))
        hint = f"; did you mean {meant[0]}?" if meant else ""
        yield f'found "{name}", expected the name of a host in the fleet ({known}){hint}'


def _members(app: AppConfig, entry: str | Entry) -> Iterator[Member]:
    if isinstance(entry, str):
        for address in ranges.expand(entry):
            yield make(app, short(address), address)
        return
    names = list(ranges.expand(entry.name))
    addresses = list(ranges.expand(entry.address)) if entry.address else names
    if len(addresses) == 1:
        addresses *= len(names)
    if len(addresses) != len(names):
        raise ConfigError(
            f"{entry.name} are {len(names)} hosts, and {entry.address} are {len(addresses)} addresses"
        )
    for name, address in zip(names, addresses, strict=True):
        yield make(
            app,
            name,
            template.fill(address, {**entry.vars, "name": name}),
            port=entry.port,
            user=entry.user,
            variables=entry.vars,
        )


def short(address: str) -> str:
    """The name of a host that is given by its address only: web001 for web001.example.com, an IP address as it is."""
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return address.partition(".")[0]
    return address
