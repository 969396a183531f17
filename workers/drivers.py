"""What waits for somebody else is done side by side: a silent host, or a git server that hangs, of one app holds up no other."""

import functools
import threading
from collections.abc import Callable, Collection, Sequence
from typing import Generic, TypeVar

import structlog

from rollout.config.addresses import comparable
from rollout.config.deploy_file import AppConfig
from rollout.domain.model import Pull, RolloutId
from rollout.errors import RolloutError
from rollout.services import intake, pulls, reconcile, stopping
from rollout.services.perform import HereAndNow
from rollout.services.ports import Deps

log = structlog.get_logger()
Key = TypeVar("Key", bound=int | str)
Room = Callable[[Key, Collection[Key], Deps], bool]
POLLS = 16  # at a time
POLLS_OF_A_SERVER = 4


class SideBySide(Generic[Key]):
    """Does the work for one of several in a thread of its own, unless it is at it, or there is no `room` beside the others."""

    def __init__(self, what: str, work: Callable[[Key, Deps], object], room: Room[Key] | None = None) -> None:
        self._what, self._work, self._room = what, work, room
        self._under_way: set[Key] = set()
        self._lock = threading.Lock()

    def __call__(self, key: Key, deps: Deps) -> None:
        """Begin, and come back at once; what has no room comes again with the next round."""
        with self._lock:
            full = self._room is not None and not self._room(key, self._under_way, deps)
            if full or key in self._under_way:
                return
            self._under_way.add(key)
        threading.Thread(target=self._do, args=(key, deps), name=f"{self._what} {key}", daemon=True).start()

    def _do(self, key: Key, deps: Deps) -> None:
        try:
            self._work(key, deps)
        except RolloutError as error:
            log.warning("not_done", what=f"{self._what} {key}", error=str(error))
        except Exception:  # it comes again with the next round
            log.exception("driver_broke", what=f"{self._what} {key}")
        finally:
            with self._lock:
                self._under_way.discard(key)


def stops() -> SideBySide[RolloutId]:
    """As many threads as there are stops, one for an app."""
    return SideBySide[RolloutId]("drive", stopping.drive)


def nexts(here: HereAndNow | None = None) -> SideBySide[str]:
    """A thread for each app whose next rollout, or whose hosts that are behind, are looked after: its inventory may hang."""
    return SideBySide[str]("next", functools.partial(reconcile.next_of, here=here))


@functools.cache
def polls() -> SideBySide[str]:
    """The process's: a few threads, and fewer of one git server: one that hangs with all its apps leaves room for the others'."""
    return SideBySide[str]("poll", functools.partial(intake.poll, look=looks()), _room)


class Looks:
    """Looks at what polls find of pull requests: it may take minutes, so beside them, in places of their own; one of an app at a time.

    What is found meanwhile, or while there is no room, waits for a later round: of each app the newest.
    """

    def __init__(self) -> None:
        self._found: dict[str, Sequence[Pull]] = {}
        self._under_way = SideBySide[str]("look at the pull requests of", self._look, _room)

    def __call__(self, app: AppConfig, found: Sequence[Pull], deps: Deps) -> None:
        """Begin, or put it off; and come back at once."""
        self._found[app.name] = found
        self.go_on(deps)

    def go_on(self, deps: Deps) -> None:
        """Begin what waits, the longest first."""
        for app in list(self._found):
            self._under_way(app, deps)

    def _look(self, app: str, deps: Deps) -> None:
        found = self._found.pop(app, None)
        if found is not None:
            pulls.look(deps.config.app(app), found, deps)


@functools.cache
def looks() -> Looks:
    """The process's."""
    return Looks()


def poll_all(deps: Deps) -> None:
    """A round over all branches, and over the pull requests that were found before."""
    reconcile.poll_all(deps, polls())
    looks().go_on(deps)


def _room(app: str, under_way: Collection[str], deps: Deps) -> bool:
    servers = [_server(one, deps) for one in under_way]
    return len(servers) < POLLS and servers.count(_server(app, deps)) < POLLS_OF_A_SERVER


def _server(app: str, deps: Deps) -> str:
    return comparable(deps.config.app(app).repository).partition("/")[0]
