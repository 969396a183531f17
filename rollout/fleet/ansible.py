"""Ansible's inventory JSON (`--list`): groups of hosts with variables, read as Ansible reads it."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Variables = Mapping[str, Any]


def hosts(listed: Variables, ask: Callable[[str], Variables]) -> dict[str, dict[str, Any]]:
    """Every host with its variables, in order: those of `all`, of its groups (outer ones first), and its own.

    `ask` gives a host's own variables when there is no `_meta.hostvars`. ValueError says what is wrong.
    """
    groups = {name: _group(name, body) for name, body in listed.items() if name != "_meta"}
    own = _own(listed)
    found: dict[str, dict[str, Any]] = {}
    for name in groups:
        for host in groups[name]["hosts"]:
            found.setdefault(host, {})
    for name in _outer_first(groups):
        for host in _within(name, groups):
            found[host].update(groups[name]["vars"])
    for host, variables in found.items():
        variables.update(
            _table(own.get(host, {}), f"_meta.hostvars.{host}") if own is not None else ask(host)
        )
    return found


def _own(listed: Variables) -> Variables | None:
    meta = listed.get("_meta")
    if meta is None:
        return None
    return _table(_table(meta, "_meta").get("hostvars", {}), "_meta.hostvars")


def _group(name: str, body: object) -> dict[str, Any]:
    given = {"hosts": body} if isinstance(body, list) else _table(body, name)
    return {
        "hosts": _names(given.get("hosts", []), f"{name}.hosts"),
        "children": _names(given.get("children", []), f"{name}.children"),
        "vars": dict(_table(given.get("vars", {}), f"{name}.vars")),
    }


def _outer_first(groups: Mapping[str, Variables]) -> list[str]:
    """`all`, then groups by how deep they lie in others, then by name: a later one overrides."""
    depth = dict.fromkeys(groups, 1)
    for _ in groups:  # a path without a circle is no longer than this
        for name, group in groups.items():
            for child in group["children"]:
                if child in depth:
                    depth[child] = min(max(depth[child], depth[name] + 1), len(groups) + 1)
    return sorted(groups, key=lambda name: (name != "all", depth[name], name))


def _within(name: str, groups: Mapping[str, Variables]) -> Iterator[str]:
    """The hosts of the group and of every group in it; `all` has every host."""
    if name == "all":
        yield from dict.fromkeys(host for group in groups.values() for host in group["hosts"])
        return
    seen, ahead = {name}, [name]
    while ahead:
        group = groups[ahead.pop()]
        yield from group["hosts"]
        inner = [child for child in group["children"] if child in groups and child not in seen]
        seen.update(inner)
        ahead += inner


def _names(given: object, at: str) -> list[str]:
    if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
        raise ValueError(f"{at} is not a list of names")
    return given


def _table(given: object, at: str) -> Variables:
    if not isinstance(given, dict):
        raise ValueError(f"{at} is not a table")  # noqa: TRY004  # of what a program printed, not of our code
    return given
