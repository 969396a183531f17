"""The policy of a rollout: the app's section of rollout.toml as it was when the rollout was planned."""

import functools
import json
from collections import OrderedDict

import structlog
from pydantic import ValidationError

from rollout.config import members, problems
from rollout.config.deploy_file import AppConfig
from rollout.domain.model import Member, Rollout, RolloutId
from rollout.errors import ConfigError
from rollout.store.store import Transaction

log = structlog.get_logger()
UNREADABLE = (
    "its hosts that have moved are not followed: a newer rollout brings them (rollout deploy); one that is"
    " kept out of it: rollout include HOST"
)


def policy(rollout: Rollout) -> AppConfig:
    """The app's configuration as it was when the rollout was planned; each is validated once."""
    return _validated(json.dumps(rollout.policy, sort_keys=True))


def unreadable(rollout: Rollout) -> str | None:
    """Why this version can bring nobody else to a rollout whose policy another one has stored, and what does; None: it is readable."""
    try:
        policy(rollout)
    except ValidationError as error:
        its = str(next(problems.from_validation(error, AppConfig, "policy")))
    except ConfigError as error:
        its = str(error)
    else:
        return None
    what = f"what rollout {rollout.id} was planned with is of another version of rollout, and cannot be read ({its})"
    return f"{what}; whatever newer goes out brings this host along"


def path_on(app: AppConfig, member: Member) -> str:
    """Where a rollout of this policy has its releases on a host, by what is said of the host now; `release.path` may be another one since."""
    try:
        return members.path_of(app, member)
    except ConfigError:  # its variables have other names since
        return member.path


class Plans:
    """Rollouts as this process saw them first: of these rows only what planning fixed is still true (commit, digest, limits, policy).

    Read once: a row has forty columns, and thousands of hosts ask. A database that was put back gives numbers a second time,
    so whether it is the same rollout is asked each time.
    """

    MOST = 64

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[object, ...], tuple[Rollout, AppConfig]] = OrderedDict()
        self._unreadable: set[RolloutId] = set()

    def of(self, tx: Transaction, rollout: RolloutId) -> tuple[Rollout, AppConfig]:
        """The rollout as planned, and its policy."""
        identity = tx.rollouts.identity(rollout)
        found = self._known.get(identity)
        if found is None:
            planned = tx.rollouts.get(rollout)
            found = self._known[identity] = (planned, policy(planned))
            if len(self._known) > self.MOST:
                self._known.popitem(last=False)
        return found

    def path_on(self, tx: Transaction, rollout: RolloutId, member: Member) -> str | None:
        """As the function, of a rollout; None when its policy is of a version whose words are no longer known: that is logged once."""
        try:
            return path_on(self.of(tx, rollout)[1], member)
        except (ConfigError, ValueError) as error:  # pydantic's is a ValueError
            if rollout not in self._unreadable:
                self._unreadable.add(rollout)
                log.warning("policy_unreadable", rollout=rollout, error=str(error), remedy=UNREADABLE)
            return None


@functools.lru_cache(maxsize=64)
def _validated(text: str) -> AppConfig:
    return AppConfig.model_validate(json.loads(text))
