"""`[apps.X]`: what is shipped, how it is tested, and how carefully it goes out."""

import re
from collections.abc import Iterator
from datetime import UTC, tzinfo
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field, StrictBool, StrictInt, StrictStr

from rollout.config import durations
from rollout.config.fields import (
    HOST_NAME,
    AnyShare,
    Branch,
    CheckName,
    Command,
    Duration,
    Percent,
    Repository,
    SomeShare,
    SomeTime,
    at_least,
    matching,
    within,
)
from rollout.config.fleet import FleetConfig
from rollout.config.table import Clash, Table
from rollout.domain import template
from rollout.domain.share import Share
from rollout.domain.windows import Window, leave_no_gap

LEAST_CONCURRENCY = 10
LEAST_RESTART_LIMIT, MOST_RESTART_LIMIT = 60.0, 300.0


def _inside(given: str) -> str:
    if not given or given.startswith(("/", "-", "~")) or ".." in given.split("/") or not given.isprintable():
        raise ValueError("a path inside the commit's tree")
    return given


def _canary_hosts(given: object) -> object:
    count = isinstance(given, int) and not isinstance(given, bool) and given >= 1
    names = (
        isinstance(given, list | tuple)
        and bool(given)
        and all(isinstance(name, str) and HOST_NAME.fullmatch(name) for name in given)
        and len(set(given)) == len(given)
    )
    if not (count or names):
        raise ValueError("names of hosts, each once, or a count of at least 1")
    return given


def _prometheus(given: str) -> str:
    url = urlsplit(given)
    if given and (url.scheme not in {"http", "https"} or not url.hostname or url.query or url.fragment):
        raise ValueError('an address such as "http://prometheus.example.com:9090"')
    if "@" in url.netloc:
        raise ValueError("an address without a password; a token goes into ROLLOUT_PROMETHEUS_TOKEN")
    return given


def _selector(given: str) -> str:
    if not re.fullmatch(r"[A-Za-z_:][A-Za-z0-9_:]*\{[^\n]*\}", given):
        raise ValueError('the series of one host: metric{label="{name}", …}')
    if not template.PLACE.search(given):  # else every host would be compared with itself
        raise ValueError("a selector that tells hosts apart, by {name}, {address} or a variable of theirs")
    return given


class TestsConfig(Table):
    """The `[apps.X.tests]` table."""

    __test__ = False  # not a test class, whatever pytest thinks of its name

    command: Annotated[Command, AfterValidator(matching(r"(?s).+", "a text that is not empty"))] = "make test"
    timeout: SomeTime = 300.0
    retries: Annotated[StrictInt, AfterValidator(within(0, 5, "a number of times from 0 (never) to 5"))] = 1
    parallel: Annotated[StrictInt, AfterValidator(within(1, 64, "a number of commits from 1 to 64"))] = 1
    pull_requests: StrictBool = False
    source: Literal["command", "external"] = "command"
    required: tuple[CheckName, ...] = ()
    deadline: SomeTime = 3600.0

    @property
    def external(self) -> bool:
        """Whether CI servers decide."""
        return self.source == "external"

    def clashes(self) -> Iterator[Clash]:
        """Which reports decide is said by name: a guess could ship what nobody tested."""
        if self.external and not self.required:
            yield Clash("required", [], 'the names of the checks that decide (source is "external")')
        if self.source == "command" and self.required:
            yield Clash("source", "command", '"external", as there are required checks')


def _window(given: str) -> str:
    Window.parse(given)
    return given


def _time_zone(given: str) -> str:
    try:
        _zone(given)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError('the name of a time zone, such as "Europe/Berlin"') from None
    return given


def _zone(name: str) -> tzinfo:
    """UTC also on a machine that has no list of time zones."""
    return UTC if name == "UTC" else ZoneInfo(name)


class QueueConfig(Table):
    """The `[apps.X.queue]` table: what goes out when."""

    most: Annotated[StrictInt, AfterValidator(within(1, 100, "a number of commits from 1 to 100"))] = 3
    goal: SomeTime = 1800.0
    freeze: tuple[Annotated[StrictStr, AfterValidator(_window)], ...] = ()
    time_zone: Annotated[StrictStr, AfterValidator(_time_zone)] = "UTC"

    def clashes(self) -> Iterator[Clash]:
        """Between the windows there is a time when something may start."""
        if leave_no_gap(self.windows):
            yield Clash(
                "freeze",
                list(self.freeze),
                "windows that leave a gap (to start nothing at all: `rollout freeze`)",
            )

    @property
    def windows(self) -> list[Window]:
        """In which automation starts nothing."""
        return [Window.parse(one) for one in self.freeze]

    @property
    def zone(self) -> tzinfo:
        """Whose clock the windows go by."""
        return _zone(self.time_zone)


class ReleaseConfig(Table):
    """The `[apps.X.release]` table."""

    path: Annotated[
        StrictStr,
        AfterValidator(matching(r"[/{][!-~]+", 'an absolute path on the hosts, such as "/srv/shop"')),
    ]
    build: Command = ""
    include: Annotated[tuple[Annotated[StrictStr, AfterValidator(_inside)], ...], Field(min_length=1)] = (
        ".",
    )
    restart: Command = ""
    health: Command = ""
    health_timeout: Duration = 30.0
    keep: Annotated[
        StrictInt,
        AfterValidator(at_least(2, "a number of at least 2: the release in use and the one before")),
    ] = 5

    @property
    def restart_limit(self) -> float:
        """Seconds that one restart may take: three times health_timeout, at least 60, at most 300."""
        return min(max(3 * self.health_timeout, LEAST_RESTART_LIMIT), MOST_RESTART_LIMIT)

    def clashes(self) -> Iterator[Clash]:
        """A health check needs time."""
        if self.health and self.health_timeout <= 0:
            yield Clash("health_timeout", "0s", "a duration longer than 0s, as there is a health check")


class CanaryConfig(Table):
    """The `[apps.X.canary]` table."""

    hosts: Annotated[tuple[str, ...] | int, BeforeValidator(_canary_hosts)] = 1
    source: Literal["access-log", "prometheus", "probe"] = "access-log"
    log: Annotated[Command, AfterValidator(matching(r"([/{][^\n\t]+)?", "an absolute path on the hosts"))] = (
        ""
    )
    prometheus: Annotated[StrictStr, AfterValidator(_prometheus)] = ""
    selector: Annotated[StrictStr, AfterValidator(_selector)] = (
        'http_requests_total{instance=~"{name}(:[0-9]+)?"}'
    )
    code_label: Annotated[
        StrictStr, AfterValidator(matching(r"[A-Za-z_][A-Za-z0-9_]*", "the name of a label"))
    ] = "code"
    probe: Annotated[
        StrictStr,
        AfterValidator(
            matching(r"(https?://[!#-&(-;=?-~]+)?", 'an address on the host: "http://localhost:8000/"')
        ),
    ] = ""
    allow_probe_pass: StrictBool = False
    good: Annotated[
        tuple[
            Annotated[
                StrictStr,
                AfterValidator(
                    matching(r"[1-5](xx|[0-9][0-9])", 'a class such as "2xx", or a status such as "404"')
                ),
            ],
            ...,
        ],
        Field(min_length=1),
    ] = ("2xx", "3xx")
    minimum_good: Percent = 0.95
    bake: Duration = 60.0
    deadline: SomeTime = 600.0
    on_inconclusive: Literal["halt", "fail"] = "halt"
    baseline: Annotated[StrictInt, AfterValidator(at_least(0, "a number of hosts, 0 for none"))] = 4
    margin: Percent = 0.01

    def clashes(self) -> Iterator[Clash]:
        """What the source needs; a deadline that is not over before the bake is."""
        for source, key, expected in (
            ("access-log", "log", "the access log's path on the hosts"),
            ("prometheus", "prometheus", "the address of a Prometheus server"),
            ("probe", "probe", "what is requested on the hosts, such as http://localhost:8000/"),
        ):
            if self.source == source and not getattr(self, key):
                yield Clash(key, None, f'{expected} (source is "{source}")')
        if self.deadline < self.bake:
            yield Clash("deadline", durations.text(self.deadline), "a duration not shorter than bake")


class FanOutConfig(Table):
    """The `[apps.X.fan_out]` table."""

    max_failed: AnyShare = Share.parse("1%")
    mode: Literal["ramp", "strict"] = "ramp"
    concurrency: SomeShare = Share.parse("10%")
    host_timeout: SomeTime = 120.0
    retries: Annotated[StrictInt, AfterValidator(at_least(0, "a number of times, 0 for never"))] = 1
    on_halt: Literal["wait", "roll-back"] = "wait"
    confirm: tuple[Literal["canary", "fan_out"], ...] = ()

    def at_once(self, total: int) -> int:
        """How many of `total` hosts may be at risk together: a share is at least 10 hosts, a number is what it says."""
        if self.concurrency.count is not None:
            return self.concurrency.count
        return max(self.concurrency.of(total), LEAST_CONCURRENCY)


class AppConfig(Table):
    """An `[apps.X]` table. `model_dump(mode="json")` and `model_validate` are each other's inverse."""

    name: Annotated[
        StrictStr,
        AfterValidator(matching(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", "a name of letters, digits and . _ -")),
    ]
    repository: Repository
    branch: Branch = "main"
    webhook_repository: Annotated[
        StrictStr, AfterValidator(matching(r"(\S+/\S+)?", 'a full name such as "acme/shop"'))
    ] = ""
    poll: Duration = 30.0
    queue: QueueConfig = QueueConfig()
    tests: TestsConfig = TestsConfig()
    release: ReleaseConfig
    canary: CanaryConfig
    fan_out: FanOutConfig = FanOutConfig()
    fleet: FleetConfig

    def policy(self) -> dict[str, Any]:
        """The table as JSON values, for a rollout to keep; of its hosts the first one: all have rows of their own there."""
        table = self.model_dump(mode="json")
        table["fleet"]["hosts"] = table["fleet"]["hosts"][:1]
        return table
