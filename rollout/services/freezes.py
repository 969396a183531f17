"""A freeze: automation starts nothing for an app. Stops, rollbacks and ways back never ask."""

from datetime import UTC, datetime

from rollout.config.deploy_file import AppConfig
from rollout.domain import windows
from rollout.domain.model import AppName, Freeze
from rollout.errors import Conflict
from rollout.services.ports import Deps
from rollout.store.store import Transaction

HOTFIX = "hotfix, although "  # so begins why a rollout was planned, or went on, past a freeze


def freeze(
    app: AppConfig, deps: Deps, *, who: str, why: str, until: datetime | None
) -> tuple[Freeze, str | None]:
    """From now on, until then or until somebody says `unfreeze`; and in words the one that it prolongs.

    Conflict when another one lasts longer: only `unfreeze` shortens what a person has said.
    """
    name = AppName(app.name)
    with deps.store.transaction() as tx:
        tx.apps.lock(name)
        if until is not None and until <= tx.today():
            raise Conflict(f"{text(app, until)} is over", remedy="give --until a moment in the future")
        before = _prolonged(tx, app, until)
        its = Freeze(tx.today(), None if until is None else until.astimezone(UTC), who, why)
        tx.apps.set_frozen(name, its)
        end = f", until {text(app, until)}" if until else ""
        instead = f"; instead of: {before}" if before else ""
        tx.record(name, "automation", "freeze", who=who, why=why + end + instead)
    return its, before


def _prolonged(tx: Transaction, app: AppConfig, until: datetime | None) -> str | None:
    """What a person has said, and this one outlasts; Conflict when it does not."""
    found = _by_somebody(tx, app)
    if found is None:
        return None
    if until is not None and (found.until is None or until < found.until):
        longer = _told(app, found) + ("" if found.until else ", until somebody says `rollout unfreeze`")
        raise Conflict(
            f"{app.name} is {longer}; that lasts longer, and stays as it is",
            remedy="if it is to end earlier: `rollout unfreeze`, and then freeze",
        )
    return _told(app, found)


def unfreeze(app: AppConfig, deps: Deps, *, who: str, why: str) -> datetime | None:
    """Automation may go on, unless a window of rollout.toml binds it: when that ends. Conflict when nobody had frozen it."""
    name = AppName(app.name)
    with deps.store.transaction() as tx:
        tx.apps.lock(name)
        if _by_somebody(tx, app) is None:
            window = frozen(tx, app)
            raise Conflict(
                f"{app.name} is not frozen by anybody" + (f"; it is {window}" if window else ""),
                remedy="a hotfix goes out with rollout deploy COMMIT --now --reason …"
                if window
                else "automation works",
            )
        tx.apps.set_frozen(name, None)
        tx.record(name, "automation", "unfreeze", who=who, why=why)
        return _by_a_window(tx, app)


def frozen(tx: Transaction, app: AppConfig) -> str | None:
    """In words for people, until when, by whom and why; None when automation may start something."""
    found = _by_somebody(tx, app)
    if found is not None:
        window = None if found.until is None else _out_of_windows(app, found.until)
        then = f", and then until {text(app, window)} by a window of rollout.toml" if window else ""
        return _told(app, found) + then
    over = _by_a_window(tx, app)
    return f"frozen until {text(app, over)}, by a window of rollout.toml" if over else None


def over_at(tx: Transaction, app: AppConfig) -> datetime | None:
    """When the freeze of now ends, and no window goes on with it; None when nothing is frozen, or nobody has said when."""
    found = _by_somebody(tx, app)
    if found is None:
        return _by_a_window(tx, app)
    return None if found.until is None else free_at(app, found.until)


def free_at(app: AppConfig, moment: datetime) -> datetime:
    """When automation may start what it could at this moment: then, or when the windows of rollout.toml that it falls into are over."""
    return _out_of_windows(app, moment) or moment


def text(app: AppConfig, moment: datetime) -> str:
    """A moment for people, on the clock of the app's time zone."""
    return f"{moment.astimezone(app.queue.zone):%a %Y-%m-%d %H:%M %Z}"


def _by_somebody(tx: Transaction, app: AppConfig) -> Freeze | None:
    """A person's freeze that is not over."""
    found = tx.apps.frozen(AppName(app.name))
    return found if found is not None and found.binds(tx.today()) else None


def _told(app: AppConfig, found: Freeze) -> str:
    end = f" until {text(app, found.until)}" if found.until else ""
    return f"frozen{end} by {found.by}: {found.reason}"


def _by_a_window(tx: Transaction, app: AppConfig) -> datetime | None:
    return _out_of_windows(app, tx.today())


def _out_of_windows(app: AppConfig, moment: datetime) -> datetime | None:
    """In UTC, as sums on a wall's clock are wrong where that is moved; None outside of all windows."""
    end = windows.ends(app.queue.windows, moment.astimezone(app.queue.zone))
    return None if end is None else end.astimezone(UTC)
