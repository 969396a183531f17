"""The policy of a rollout: the app's section of rollout.toml as it was when the rollout was planned."""

import functools
import json
from collections import OrderedDict
from collections.abc import Mapping

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
    """The app's configuration as it was when the rollout was planned; each is validated once. ConfigError when this version cannot read it."""
    try:
        return _validated(json.dumps(rollout.policy, sort_keys=True))
    except ValidationError as error:
        raise _of_another_version(rollout, error) from error


def unreadable(rollout: Rollout) -> str | None:
    """Why nothing goes on by the policy of a rollout, which another version has stored; None: it is readable."""
    try:
        policy(rollout)
    except ConfigError as error:
        return str(error)
    return None


def for_the_way_back(rollout: Rollout, apps: Mapping[str, AppConfig]) -> AppConfig:
    """What a rollout is stopped, read and taken back by: also when another version has stored its policy.

    Without the keys that this version does not know; and a table with a value that it cannot read as `apps`, rollout.toml,
    has it now. ConfigError when it has none of the app any more.
    """
    try:
        return AppConfig.model_validate(rollout.policy, extra="ignore")
    except ValidationError as error:
        now = apps.get(rollout.app)
        if now is None:
            raise ConfigError(
                f"{_of_another_version(rollout, error)}, and there is no [apps.{rollout.app}] in rollout.toml to go by instead",
                remedy="put it back, and restart rollout: then it goes on",
            ) from error
        strange = {problem["loc"][0] for problem in error.errors()}
        instead = {name: value for name, value in now.policy().items() if name in strange}
        return AppConfig.model_validate({**rollout.policy, **instead}, extra="ignore")


def asks(rollout: Rollout) -> frozenset[str]:
    """The stages before which it waits for a person's yes, whether or not the rest of its policy can be read."""
    return frozenset(rollout.policy.get("fan_out", {}).get("confirm", ()))


def goes_back_on_halt(rollout: Rollout) -> bool:
    """Whether automation takes it back when it halts, as `asks`."""
    return bool(rollout.policy.get("fan_out", {}).get("on_halt") == "roll-back")


def release_path(rollout: Rollout) -> str:
    """`release.path` of its policy, as `asks`; variables of hosts are not filled in."""
    return str(rollout.policy.get("release", {}).get("path", ""))


def _of_another_version(rollout: Rollout, error: ValidationError) -> ConfigError:
    its = next(problems.from_validation(error, AppConfig, "policy"))
    return ConfigError(
        f"what rollout {rollout.id} was planned with is of another version of rollout, and cannot be read ({its})"
    )


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

    def back(
        self, tx: Transaction, rollout: RolloutId, apps: Mapping[str, AppConfig]
    ) -> tuple[Rollout, AppConfig]:
        """As `of`; when its policy cannot be read any more, what it is taken back by."""
        try:
            return self.of(tx, rollout)
        except ConfigError:
            planned = tx.rollouts.get(rollout)
            return planned, for_the_way_back(planned, apps)

    def path_on(self, tx: Transaction, rollout: RolloutId, member: Member) -> str | None:
        """As the function, of a rollout; None when its policy is of a version whose words are no longer known: that is logged once."""
        try:
            return path_on(self.of(tx, rollout)[1], member)
        except ConfigError as error:
            if rollout not in self._unreadable:
                self._unreadable.add(rollout)
                log.warning("policy_unreadable", rollout=rollout, error=str(error), remedy=UNREADABLE)
            return None


@functools.lru_cache(maxsize=64)
def _validated(text: str) -> AppConfig:
    return AppConfig.model_validate(json.loads(text))
