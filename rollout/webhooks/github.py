"""GitHub: `X-Hub-Signature-256`. Its SHA-1 signature is ignored."""

from collections.abc import Sequence

from rollout.domain.model import Push
from rollout.errors import SignatureInvalid
from rollout.webhooks import payload, reports, signing
from rollout.webhooks.headers import GivenHeaders, one
from rollout.webhooks.hub import pull_request, pushed

PREFIX = "sha256="


class GitHub:
    """github.com and GitHub Enterprise Server."""

    def verify(self, headers: GivenHeaders, body: bytes, secrets: Sequence[str]) -> None:
        """SignatureInvalid unless one of the secrets signed these very bytes."""
        given = signing.only(headers, "x-hub-signature-256")
        if not given.startswith(PREFIX):
            raise SignatureInvalid("X-Hub-Signature-256 does not start with sha256=", remedy=signing.REMEDY)
        signing.check_hex(given.removeprefix(PREFIX), body, secrets)

    def parse(self, headers: GivenHeaders, body: bytes) -> Push:
        """A push, a pull request, a report, a ping, or something else; Unreadable."""
        found = payload.load(headers, body)
        delivery = payload.delivery(headers, body, "x-github-delivery")
        event = one(headers, "x-github-event")
        if event == "ping":
            return Push("github", delivery, "ping")
        if event in reports.GITHUB:
            return reports.github(event, delivery, found)
        if event == "pull_request":
            return pull_request("github", delivery, found)
        if event != "push":
            return Push("github", delivery, "other")
        return pushed("github", delivery, found)
