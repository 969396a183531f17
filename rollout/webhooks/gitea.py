"""Gitea and Forgejo: `X-Gitea-Signature`, bare hex digits."""

from collections.abc import Sequence

from rollout.domain.model import Push
from rollout.webhooks import payload, signing
from rollout.webhooks.headers import GivenHeaders, one
from rollout.webhooks.hub import pull_request, pushed

PULL_REQUEST = {"pull_request", "pull_request_sync"}


class Gitea:
    """Gitea, and Forgejo, which sends the same headers."""

    def verify(self, headers: GivenHeaders, body: bytes, secrets: Sequence[str]) -> None:
        """SignatureInvalid unless one of the secrets signed these very bytes."""
        signing.check_hex(signing.only(headers, "x-gitea-signature"), body, secrets)

    def parse(self, headers: GivenHeaders, body: bytes) -> Push:
        """A push, a pull request, or something else (it has no ping: a test delivery is a push); Unreadable."""
        found = payload.load(headers, body)
        delivery = payload.delivery(headers, body, "x-gitea-delivery")
        event = one(headers, "x-gitea-event")
        if event in PULL_REQUEST:
            return pull_request("gitea", delivery, found)
        if event != "push":
            return Push("gitea", delivery, "other")
        return pushed("gitea", delivery, found)
