"""GitLab: `webhook-signature` (Standard Webhooks; newer ones have it) or the secret itself in `X-Gitlab-Token`.

Which one is accepted is the secret's own choice: a signing token (`whsec_…`) only ever signs, any other secret is
compared as a token. A request with a signature is judged by it alone. The signed time is not compared with ours: a
delivery that comes late, or again, makes us look at the branch and nothing more.
"""

import base64
import binascii
import hmac
from collections.abc import Sequence

from rollout.domain.model import Push
from rollout.errors import Unreadable
from rollout.webhooks import headers as header
from rollout.webhooks import payload, reports, signing
from rollout.webhooks.headers import GivenHeaders

SIGNING_TOKEN = "whsec_"  # noqa: S105  # the form of a secret, not one
VERSION = "v1,"
ADDRESSES = ("git_http_url", "git_ssh_url", "http_url", "ssh_url", "web_url", "url")


class GitLab:
    """gitlab.com and GitLab's own installations."""

    def verify(self, headers: GivenHeaders, body: bytes, secrets: Sequence[str]) -> None:
        """SignatureInvalid unless one of the secrets signed these very bytes, or is the token."""
        if header.values(headers, "webhook-signature"):
            self._verify_signature(headers, body, secrets)
        else:
            given = signing.only(headers, "x-gitlab-token").encode()
            signing.check(
                lambda secret: (
                    not secret.startswith(SIGNING_TOKEN) and hmac.compare_digest(secret.encode(), given)
                ),
                secrets,
            )

    def parse(self, headers: GivenHeaders, body: bytes) -> Push:
        """A push, a merge request, a report, or something else (it has no ping: its test button sends a push); Unreadable."""
        found = payload.load(headers, body)
        delivery = payload.delivery(headers, body, "webhook-id", "idempotency-key", "x-gitlab-event-uuid")
        if payload.text(found, "object_kind") == "pipeline":
            return reports.gitlab(delivery, found, ADDRESSES)
        if payload.text(found, "object_kind") not in {"push", "merge_request"}:
            return Push("gitlab", delivery, "other")
        project = payload.table(found, "project")
        addresses = payload.texts(project, *ADDRESSES)
        full_name = payload.text(project, "path_with_namespace")
        if payload.text(found, "object_kind") == "merge_request":
            return Push("gitlab", delivery, "pull", addresses, full_name)
        ref = payload.ref(found, "ref")
        if not ref or not (addresses or full_name) or "after" not in found:
            raise Unreadable("a push without ref, after, or the project's addresses")
        branch = payload.branch_of(ref)
        return Push(
            provider="gitlab",
            delivery=delivery,
            kind="push" if branch else "other",
            repositories=addresses,
            full_name=full_name,
            branch=branch,
            head=payload.head(found, "after"),
        )

    def _verify_signature(self, headers: GivenHeaders, body: bytes, secrets: Sequence[str]) -> None:
        signatures = signing.only(headers, "webhook-signature").split()
        given = [part.removeprefix(VERSION).encode() for part in signatures if part.startswith(VERSION)]
        name, time = (signing.only(headers, key) for key in ("webhook-id", "webhook-timestamp"))
        signed = f"{name}.{time}.".encode() + body

        def fits(secret: str) -> bool:
            expected = base64.b64encode(signing.digest(_key(secret), signed))
            return any([hmac.compare_digest(expected, signature) for signature in given])  # noqa: C419  # all, always

        signing.check(fits, secrets)


def _key(secret: str) -> bytes:
    if secret.startswith(SIGNING_TOKEN):
        try:
            return base64.b64decode(secret.removeprefix(SIGNING_TOKEN), validate=True)
        except binascii.Error:
            pass
    return secret.encode()
