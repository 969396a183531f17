"""Whose push is it? Found by comparing names; what is fetched comes from the configuration, never from the payload."""

from collections.abc import Mapping
from dataclasses import replace

from rollout.config.addresses import comparable
from rollout.config.deploy_file import AppConfig
from rollout.domain.model import Push


def match(push: Push, apps: Mapping[str, AppConfig]) -> AppConfig | None:
    """The app with this repository, if there is one: rather one that ships a pushed branch, else any."""
    of_repository = [app for app in apps.values() if _same_repository(push, app)]
    of_branch = [app for app in of_repository if app.branch in _heads(push)]
    return next(iter(of_branch or of_repository), None)


def matches(push: Push, apps: Mapping[str, AppConfig]) -> list[AppConfig]:
    """Every app that ships a pushed branch of this repository: several may, each with its own build and fleet."""
    return [app for app in apps.values() if _same_repository(push, app) and app.branch in _heads(push)]


def of_repository(push: Push, apps: Mapping[str, AppConfig]) -> list[AppConfig]:
    """Every app of this repository, whatever the branch: reports are of commits."""
    return [app for app in apps.values() if _same_repository(push, app)]


def narrow(push: Push, app: AppConfig) -> Push:
    """The push as this app sees it: of several pushed branches, the app's own."""
    heads = _heads(push)
    if app.branch not in heads:
        return push
    return replace(push, branch=app.branch, head=heads[app.branch], more=())


def _heads(push: Push) -> dict[str, str]:
    return {branch: head for branch, head in ((push.branch, push.head), *push.more) if branch}


def _same_repository(push: Push, app: AppConfig) -> bool:
    ours = comparable(app.repository)
    if ours and ours in {comparable(address) for address in push.repositories}:
        return True
    named, wanted = push.full_name.casefold(), app.webhook_repository.casefold()
    return bool(named) and named == wanted
