"""Whose push it is."""

import pytest

from rollout.domain.model import Push
from rollout.webhooks import match, matches, narrow

A, B = "a" * 40, "b" * 40


def a_push(*repositories, branch="main", full_name="acme/shop", more=()):
    """A push as a server would tell it."""
    return Push("github", "1", "push", repositories, full_name, branch, A, more)


@pytest.mark.parametrize(
    "repository",
    [
        "https://github.com/acme/shop",
        "https://github.com/acme/shop.git/",
        "git@github.com:acme/shop.git",
        "ssh://git@github.com:443/acme/shop.git",
        "git@github.com:Acme/Shop",
    ],
)
def test_an_app_is_found_by_any_spelling_of_its_repository(an_app, repository):
    """Scheme, user, port, trailing slash, .git and case do not hide an app."""
    shop = an_app("shop", repository)
    push = a_push("https://github.com/acme/shop.git", "git@github.com:acme/shop.git")
    assert match(push, {"shop": shop}) is shop


@pytest.mark.parametrize(
    "address",
    [
        "https://github.com/evil/shop.git",
        "https://evil.com/acme/shop.git",
        "https://github.com/acme/shop/x",
        "",
    ],
)
def test_another_repository_is_nobodys(an_app, address):
    """A push of another repository finds no app, even with the same full name."""
    assert match(a_push(address), {"shop": an_app("shop", "git@github.com:acme/shop.git")}) is None


def test_the_full_name_counts_only_when_configured(an_app):
    """webhook_repository finds an app whose addresses differ; without it the full name says nothing."""
    mirror = an_app("shop", "/srv/git/shop.git", webhook_repository="acme/shop")
    push = a_push("https://github.com/acme/shop.git", full_name="Acme/Shop")
    assert match(push, {"shop": mirror}) is mirror
    assert match(push, {"shop": an_app("shop", "/srv/git/shop.git")}) is None
    assert match(a_push(full_name=""), {"shop": an_app("shop", "/srv/git/shop.git")}) is None


def test_a_local_repository_is_found_by_its_path(an_app):
    """A path and its file address are one repository."""
    shop = an_app("shop", "/srv/git/shop.git")
    assert match(a_push("file:///srv/git/shop.git"), {"shop": shop}) is shop


def test_of_several_apps_the_one_with_the_branch_is_found(an_app):
    """Apps of one repository are told apart by their branch; any of them, when none ships it."""
    address = "https://github.com/acme/shop.git"
    apps = {"live": an_app("live", address, "live"), "next": an_app("next", address, "next")}
    assert match(a_push(address, branch="next"), apps) is apps["next"]
    assert match(a_push(address, branch="feature"), apps) is apps["live"]


def test_every_app_of_a_branch_is_told(an_app):
    """Several apps may ship one branch of one repository."""
    address = "https://github.com/acme/shop.git"
    apps = {
        "web": an_app("web", address),
        "api": an_app("api", address),
        "old": an_app("old", address, "old"),
    }
    assert matches(a_push(address), apps) == [apps["web"], apps["api"]]
    assert matches(a_push(address, branch="x"), apps) == []


def test_an_apps_branch_is_picked_out_of_several(an_app):
    """Of several pushed branches an app sees its own; of none of its own, the push as it is."""
    address = "https://github.com/acme/shop.git"
    shop = an_app("shop", address)
    push = a_push(address, branch="feature", more=(("main", B), ("gone", "")))
    assert match(push, {"shop": shop}) is shop
    assert (narrow(push, shop).branch, narrow(push, shop).head, narrow(push, shop).more) == ("main", B, ())
    other = a_push(address, branch="feature")
    assert narrow(other, shop) is other
