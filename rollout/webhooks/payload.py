"""A webhook's body as JSON, read without trust in its shape."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn
from urllib.parse import parse_qs

from rollout.errors import Unreadable
from rollout.webhooks import headers as header
from rollout.webhooks.headers import GivenHeaders

MOST_BYTES = 5_000_000
MOST_DEPTH = 64
LONGEST = 2048
DELIVERY = re.compile(r"[A-Za-z0-9._:{}-]{1,100}")
COMMIT = re.compile(r"[0-9a-f]{40}")
NOTHING = "0" * 40
BRANCHES = "refs/heads/"
REF = re.compile(r"[^\x00-\x20\x7f\ud800-\udfff]+")

Table = Mapping[str, Any]


def load(headers: GivenHeaders, body: bytes) -> Table:
    """The body's JSON object (in a form's `payload` too); Unreadable for everything else."""
    if len(body) > MOST_BYTES:
        raise Unreadable(f"the body has {len(body)} bytes, more than {MOST_BYTES}")
    if header.one(headers, "content-encoding").lower() not in {"", "identity"}:
        raise Unreadable("the body is compressed, which webhooks are not")
    try:
        text = body.decode()
        if (
            header.one(headers, "content-type").startswith("application/x-www-form-urlencoded")
            and text[:1] != "{"
        ):
            text = _from_form(text)
        found = json.loads(text, object_pairs_hook=_no_doubles, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"the body is not JSON: {_cut(error)}") from error
    if not isinstance(found, dict) or _deeper_than(found, MOST_DEPTH):
        raise Unreadable("the body is not a JSON object of reasonable depth")
    return found


def table(within: Table, *path: str) -> Table:
    """The object at this path; an empty one when there is none."""
    found: Any = within
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def tables(within: Table, key: str) -> list[Table]:
    """The objects of a list; none when there is no list."""
    found = within.get(key)
    return [element for element in found if isinstance(element, dict)] if isinstance(found, list) else []


def text(within: Table, key: str) -> str:
    """A short text; "" when there is none."""
    found = within.get(key)
    return found if isinstance(found, str) and len(found) <= LONGEST and found.isprintable() else ""


def ref(within: Table, key: str) -> str:
    """The name of a branch or of a ref, with every character that git allows in one, seen or not; "" when there is none."""
    found = within.get(key)
    return found if isinstance(found, str) and len(found) <= LONGEST and REF.fullmatch(found) else ""


def texts(within: Table, *keys: str) -> tuple[str, ...]:
    """The texts under these keys that are there, each once."""
    return tuple(dict.fromkeys(found for key in keys if (found := text(within, key))))


def head(within: Table, key: str) -> str:
    """The commit under this key, "" for none (forty zeros or null); Unreadable for anything else."""
    found = within.get(key)
    if found is None or found == NOTHING:
        return ""
    if not isinstance(found, str) or not COMMIT.fullmatch(found):
        raise Unreadable(f"{key!r} is not a commit of 40 hex digits")
    return found


def branch_of(ref: str) -> str:
    """The branch that the ref names; "" for a tag and everything else."""
    return ref.removeprefix(BRANCHES) if ref.startswith(BRANCHES) else ""


def delivery(headers: GivenHeaders, body: bytes, *names: str) -> str:
    """The server's id of this delivery, else the body's own digest."""
    for name in names:
        found = header.one(headers, name)
        if DELIVERY.fullmatch(found):
            return found
    return hashlib.sha256(body).hexdigest()


def _from_form(body: str) -> str:
    payload = parse_qs(body, strict_parsing=True, max_num_fields=10).get("payload", [])
    if len(payload) != 1:
        raise ValueError("a form without a field named payload")
    return payload[0]


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _cut(error: BaseException) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.pos}"
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not UTF-8"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]


def _deeper_than(found: Any, most: int) -> bool:
    level = [found]
    for _ in range(most):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True
