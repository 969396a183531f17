"""Gitea and Forgejo: `X-Gitea-Signature` or `X-Forgejo-Signature`, bare hex digits."""

from collections.abc import Sequence

from rollout.domain.model import Push
from rollout.webhooks import payload, signing
from rollout.webhooks.headers import GivenHeaders, one, values
from rollout.webhooks.hub import pull_request, pushed

PULL_REQUEST = {"pull_request", "pull_request_sync"}


class Gitea:
    """Gitea, and Forgejo, which says the same under its own name; today under both."""

    def verify(self, headers: GivenHeaders, body: bytes, secrets: Sequence[str]) -> None:
        """SignatureInvalid unless one of the secrets signed these very bytes."""
        signing.check_hex(signing.only(headers, f"{_sender(headers)}-signature"), body, secrets)

    def parse(self, headers: GivenHeaders, body: bytes) -> Push:
        """A push, a pull request, or something else (it has no ping: a test delivery is a push); Unreadable."""
        found = payload.load(headers, body)
        sender = _sender(headers)
        delivery = payload.delivery(headers, body, f"{sender}-delivery")
        event = one(headers, f"{sender}-event")
        if event in PULL_REQUEST:
            return pull_request("gitea", delivery, found)
        if event != "push":
            return Push("gitea", delivery, "other")
        return pushed("gitea", delivery, found)


def _sender(headers: GivenHeaders) -> str:
    """How its headers begin. The word of the one that signs is taken for all: nothing is mixed from two."""
    return "x-forgejo" if values(headers, "x-forgejo-signature") else "x-gitea"
