"""Who tells us of commits: the servers whose push webhooks we understand. Pure: headers and bytes in, a Push out."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from rollout.domain.model import Push
from rollout.errors import UnknownName
from rollout.webhooks.bitbucket import Bitbucket
from rollout.webhooks.gitea import Gitea
from rollout.webhooks.github import GitHub
from rollout.webhooks.gitlab import GitLab
from rollout.webhooks.headers import GivenHeaders
from rollout.webhooks.matching import match, matches, narrow, of_repository

__all__ = ["PROVIDERS", "GivenHeaders", "Provider", "match", "matches", "narrow", "of_repository", "provider"]


class Provider(Protocol):
    """A kind of git server. `verify` comes first: nothing of an unsigned body is looked at."""

    def verify(self, headers: GivenHeaders, body: bytes, secrets: Sequence[str]) -> None:
        """SignatureInvalid unless one of the secrets signed these very bytes."""

    def parse(self, headers: GivenHeaders, body: bytes) -> Push:
        """What the webhook says; Unreadable when it makes no sense."""


PROVIDERS: Mapping[str, Provider] = {
    "github": GitHub(),
    "gitlab": GitLab(),
    "gitea": Gitea(),
    "bitbucket": Bitbucket(),
}


def provider(name: str) -> Provider:
    """The provider of this name; UnknownName."""
    if name not in PROVIDERS:
        raise UnknownName("webhook provider", name, list(PROVIDERS))
    return PROVIDERS[name]
