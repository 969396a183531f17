"""The address of a repository: its scheme, its secret, and how it is shown to people."""

import re
from dataclasses import dataclass
from urllib.parse import unquote

from rollout.errors import ConfigError

SCHEMES = ("file", "git", "http", "https", "ssh")

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_HELPER = re.compile(r"[A-Za-z0-9+.-]+::")
_LOGIN = re.compile(r"(https?://)([^/@\s]*)@", re.IGNORECASE)
_PASSWORD = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://[^/@:\s]*):[^/@\s]*@")


@dataclass(frozen=True, slots=True)
class Repository:
    """Where git fetches from. The address holds no secret: user and password of an http address are apart."""

    address: str
    scheme: str
    user: str = ""
    password: str = ""

    @classmethod
    def parse(cls, text: str) -> "Repository":
        """Of the configuration's words; ConfigError for a transport that is not allowed."""
        scheme = _scheme(text)
        if scheme not in SCHEMES:
            raise ConfigError(
                f"repository {masked(text)}: git transport {scheme!r} is not allowed",
                remedy=f"use a path or one of {', '.join(f'{name}://' for name in SCHEMES)}",
            )
        login = _LOGIN.match(text)
        if login is None:
            return cls(text, scheme)
        user, _, password = login[2].partition(":")
        return cls(login[1] + text[login.end() :], scheme, unquote(user), unquote(password))


def masked(text: str) -> str:
    """The text without passwords and tokens of the addresses in it."""
    return _PASSWORD.sub(r"\1:***@", _LOGIN.sub(r"\1***@", text))


def _scheme(text: str) -> str:
    if helper := _HELPER.match(text):
        return helper[0]
    if known := _SCHEME.match(text):
        return known[1].lower()
    colon, slash = text.find(":"), text.find("/")
    return "ssh" if colon > 0 and (slash < 0 or colon < slash) else "file"
