"""Bitbucket Cloud and Bitbucket Data Center: `X-Hub-Signature: sha256=…`. One event may tell of several branches."""

from collections.abc import Iterator, Sequence

from rollout.domain.model import Push
from rollout.errors import SignatureInvalid, Unreadable
from rollout.webhooks import payload, signing
from rollout.webhooks.headers import GivenHeaders, one

PREFIX = "sha256="
Branches = list[tuple[str, str]]  # name and head, "" for a deleted one


class Bitbucket:
    """bitbucket.org (`repo:push`) and Data Center (`repo:refs_changed`)."""

    def verify(self, headers: GivenHeaders, body: bytes, secrets: Sequence[str]) -> None:
        """SignatureInvalid unless one of the secrets signed these very bytes."""
        given = signing.only(headers, "x-hub-signature")
        if not given.startswith(PREFIX):
            raise SignatureInvalid("X-Hub-Signature does not start with sha256=", remedy=signing.REMEDY)
        signing.check_hex(given.removeprefix(PREFIX), body, secrets)

    def parse(self, headers: GivenHeaders, body: bytes) -> Push:
        """A push, a ping, or something else; Unreadable. Further branches of the same push are in `more`."""
        found = payload.load(headers, body)
        delivery = payload.delivery(headers, body, "x-request-uuid", "x-request-id")
        repository = payload.table(found, "repository")
        match one(headers, "x-event-key"):
            case "diagnostics:ping":
                return Push("bitbucket", delivery, "ping")
            case "repo:push":
                branches = list(_cloud(found))
                addresses, full_name = _cloud_names(repository)
            case "repo:refs_changed":
                branches = list(_data_center(found))
                addresses, full_name = _data_center_names(repository)
            case _:
                return Push("bitbucket", delivery, "other")
        if not (addresses or full_name):
            raise Unreadable("a push without the repository's addresses")
        return _push(delivery, addresses, full_name, branches)


def _push(delivery: str, addresses: tuple[str, ...], full_name: str, branches: Branches) -> Push:
    if not branches:
        return Push("bitbucket", delivery, "other", addresses, full_name)
    (branch, head), *more = branches
    return Push("bitbucket", delivery, "push", addresses, full_name, branch, head, tuple(more))


def _cloud(found: payload.Table) -> Iterator[tuple[str, str]]:
    push = payload.table(found, "push")
    if "changes" not in push:
        raise Unreadable("a push without changes")
    for change in payload.tables(push, "changes"):
        new, old = payload.table(change, "new"), payload.table(change, "old")
        branch = new or old
        if payload.text(branch, "type") == "branch" and payload.ref(branch, "name"):
            yield payload.ref(branch, "name"), payload.head(payload.table(new, "target"), "hash")


def _cloud_names(repository: payload.Table) -> tuple[tuple[str, ...], str]:
    return payload.texts(payload.table(repository, "links", "html"), "href"), payload.text(
        repository, "full_name"
    )


def _data_center(found: payload.Table) -> Iterator[tuple[str, str]]:
    if "changes" not in found:
        raise Unreadable("a push without changes")
    for change in payload.tables(found, "changes"):
        branch = payload.branch_of(payload.ref(payload.table(change, "ref"), "id"))
        if branch:
            yield branch, payload.head(change, "toHash")


def _data_center_names(repository: payload.Table) -> tuple[tuple[str, ...], str]:
    links = payload.table(repository, "links")
    addresses = (
        payload.text(link, "href") for name in ("clone", "self") for link in payload.tables(links, name)
    )
    key = payload.text(payload.table(repository, "project"), "key")
    slug = payload.text(repository, "slug")
    return tuple(dict.fromkeys(filter(None, addresses))), f"{key}/{slug}" if key and slug else ""
