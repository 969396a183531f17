"""Addresses of repositories."""

import pytest

from rollout.errors import ConfigError
from rollout.releases.repository import Repository, masked


@pytest.mark.parametrize(
    ("text", "scheme"),
    [
        ("/srv/git/shop.git", "file"),
        ("./shop.git", "file"),
        ("/odd:name/shop.git", "file"),
        ("file:///srv/git/shop.git", "file"),
        ("git@example.com:acme/shop.git", "ssh"),
        ("ssh://git@example.com/shop.git", "ssh"),
        ("https://example.com/shop.git", "https"),
        ("HTTP://example.com/shop.git", "http"),
    ],
)
def test_one_transport_is_allowed_and_it_is_the_addresses_own(text, scheme):
    """The scheme decides which of git's transports may be used, and no other."""
    repository = Repository.parse(text)
    assert (repository.scheme, repository.address) == (scheme, text)


@pytest.mark.parametrize("text", ["ext::sh -c id", "fd::17", "ftp://example.com/x", "ext::", "svn+ssh://x/y"])
def test_transports_that_run_programs_are_refused(text):
    """`ext::` and unknown schemes never reach git."""
    with pytest.raises(ConfigError, match="not allowed"):
        Repository.parse(text)


def test_login_of_an_http_address_is_taken_out_of_it():
    """An address is seen in process lists, so it must not hold the password."""
    repository = Repository.parse("https://me:p%40ss@example.com/shop.git")
    assert repository == Repository("https://example.com/shop.git", "https", "me", "p@ss")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("fatal: https://me:secret@host/x: no", "fatal: https://***@host/x: no"),
        ("https://token@host/x", "https://***@host/x"),
        ("ssh://me:secret@host/x", "ssh://me:***@host/x"),
        ("ssh://git@host/x", "ssh://git@host/x"),
    ],
)
def test_passwords_are_not_shown(text, shown):
    """Messages carry the address without what opens it."""
    assert masked(text) == shown
