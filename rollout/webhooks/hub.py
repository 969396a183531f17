"""The push payload that GitHub defined and Gitea took over."""

from rollout.domain.model import Push
from rollout.errors import Unreadable
from rollout.webhooks import payload

ADDRESSES = ("clone_url", "ssh_url", "git_url", "html_url")


def pull_request(provider: str, delivery: str, found: payload.Table) -> Push:
    """Something is new with a pull request; of what it says only the repository is used."""
    repository = payload.table(found, "repository")
    addresses, full_name = payload.texts(repository, *ADDRESSES), payload.text(repository, "full_name")
    if not (addresses or full_name):
        raise Unreadable("a pull request without the repository's addresses")
    return Push(provider, delivery, "pull", addresses, full_name)


def pushed(provider: str, delivery: str, found: payload.Table) -> Push:
    """The push; of kind "other" when it is no branch that was pushed. Unreadable without ref, repository or head."""
    repository = payload.table(found, "repository")
    addresses = payload.texts(repository, *ADDRESSES)
    full_name = payload.text(repository, "full_name")
    ref = payload.ref(found, "ref")
    if not ref or not (addresses or full_name) or "after" not in found:
        raise Unreadable("a push without ref, after, or the repository's addresses")
    branch = payload.branch_of(ref)
    return Push(
        provider=provider,
        delivery=delivery,
        kind="push" if branch else "other",
        repositories=addresses,
        full_name=full_name,
        branch=branch,
        head=payload.head(found, "after"),
    )
