"""The one page: what runs, what is next, what was, and why nothing is started. Read only; no script."""

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from rollout.config.deploy_file import AppConfig, Config
from rollout.domain.model import AppName, Commit, Rollout
from rollout.domain.states import HostState
from rollout.services import catching_up, explaining, freezes, telling, views
from rollout.store.store import Transaction
from rollout.web.plain import plain
from rollout.web.service import Service

NEXT, LAST, BEHIND = 10, 8, 10  # commits, rollouts, hosts
REFRESH_S = 5
BAR = 100.0
LONGEST = 300  # characters of one text


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of the bar: so many hosts in this state."""

    state: str
    hosts: int
    start: float
    width: float


@dataclass(frozen=True, slots=True)
class Shown:
    """A rollout as the page shows it: its JSON, its commit's subject and author, its bar."""

    facts: dict[str, Any]
    subject: str
    author: str
    bar: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Other:
    """An app of which nothing begins, and why; what is under way ends all the same."""

    name: str
    why: str
    running: tuple[Shown, ...]


@dataclass(frozen=True, slots=True)
class AppSection:
    """One app."""

    name: str
    running: tuple[Shown, ...]
    next: str  # as `rollout status` says it
    frozen: str | None
    red: Commit | None
    broken: str  # since which commit, and by whom
    coming: tuple[Commit, ...]
    more: int
    behind: tuple[tuple[str, str], ...]  # hosts by name, and what becomes of each
    more_behind: int
    last: tuple[Shown, ...]


class Page:
    """`GET /`."""

    def __init__(self, service: Service) -> None:
        self._service = service
        environment = Environment(
            loader=PackageLoader("rollout.web"),
            autoescape=True,
            undefined=StrictUndefined,
            finalize=_finalize,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        source, _, _ = PackageLoader("rollout.web").get_source(environment, "page.css")
        self._style = source.strip()
        self._template = environment.get_template("page.html")
        self._headers = {"Content-Security-Policy": policy(self._style)}

    async def show(self, _request: Request) -> Response:
        """The page as of now."""
        return HTMLResponse(await self._service.read(self._render), headers=self._headers)

    def _render(self, tx: Transaction) -> str:
        apps = [section(tx, app) for app in self._service.deps.config.apps.values()]
        return self._template.render(
            apps=apps,
            others=list(_others(tx, self._service.deps.config)),
            style=Style(self._style),
            refresh_s=REFRESH_S,
            now=views.moment(tx.today()),
            states=list(HostState),
        )


class Style(str):
    """Our own style sheet: it is not escaped, so that its digest stays what the policy says."""

    __slots__ = ()

    def __html__(self) -> str:
        """As it is."""
        return str(self)


def policy(style: str) -> str:
    """What the page may do: show itself with this style sheet, and nothing else."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def section(tx: Transaction, app: AppConfig) -> AppSection:
    """What there is to show of one app."""
    name = AppName(app.name)
    running = tx.rollouts.unfinished(name)
    coming = _coming(tx, name, running)
    late = catching_up.late(tx, app)
    red = telling.first_red(tx, app)
    return AppSection(
        name=app.name,
        running=tuple(_shown(tx, running)),
        next=explaining.sentence(app, explaining.coming(tx, app), tx.today()),
        frozen=freezes.frozen(tx, app),
        red=red,
        broken=telling.broken(red) if red else "",
        coming=tuple(coming[:NEXT]),
        more=max(0, len(coming) - NEXT),
        behind=tuple((one.name, _becomes(tx, app, one)) for one in late[:BEHIND]),
        more_behind=max(0, len(late) - BEHIND),
        last=tuple(_shown(tx, tx.rollouts.finished(name, LAST))),
    )


def _others(tx: Transaction, config: Config) -> Iterator[Other]:
    gone = {one.app for one in tx.rollouts.unfinished()} - {*config.names}
    for name in map(AppName, [*config.left_out, *sorted(gone)]):
        why = "rollout.toml has it no more" if name in gone else "its table in rollout.toml is wrong"
        yield Other(name, why, tuple(_shown(tx, tx.rollouts.unfinished(name))))


def _becomes(tx: Transaction, app: AppConfig, one: catching_up.Late) -> str:
    return explaining.sentence(app, explaining.Why(one.because, one.next_at), tx.today())


def _coming(tx: Transaction, app: AppName, running: list[Rollout]) -> list[Commit]:
    """The branch behind what runs or is being rolled out; before the first rollout, what is in test."""
    newest = running[-1].commit if running else tx.rollouts.released(app)
    base = tx.commits.get(app, newest) if newest else None
    if base is None or base.position is None:
        return tx.commits.unfinished(app)
    return tx.commits.after(app, base.position)


def _shown(tx: Transaction, found: list[Rollout]) -> Iterator[Shown]:
    for rollout, facts in zip(found, views.rollouts(tx, found), strict=True):
        commit = tx.commits.get(rollout.app, rollout.commit)
        yield Shown(
            facts,
            commit.subject if commit else "",
            commit.author if commit else "",
            tuple(bar(facts["counts"])),
        )


def bar(counts: dict[str, int]) -> Iterator[Piece]:
    """The pieces from left to right, in a width of 100."""
    total, start = max(1, counts["total"]), 0.0
    order = (HostState.DONE, *(state for state in HostState if state is not HostState.DONE))
    for state in order:
        if hosts := counts[state]:
            width = BAR * hosts / total
            yield Piece(str(state), hosts, round(start, 3), round(width, 3))
            start += width


def _finalize(value: Any) -> Any:
    """Whatever the template shows is made plain, and cut; escaping comes after it."""
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return _cut(plain(value))
    return "" if value is None else value


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
