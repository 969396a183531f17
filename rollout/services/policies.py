"""The policy of a rollout: the app's section of rollout.toml as it was when the rollout was planned."""

import functools
import json

from rollout.config.deploy_file import AppConfig
from rollout.domain.model import Rollout


def policy(rollout: Rollout) -> AppConfig:
    """The app's configuration as it was when the rollout was planned; each is validated once."""
    return _validated(json.dumps(rollout.policy, sort_keys=True))


@functools.lru_cache(maxsize=64)
def _validated(text: str) -> AppConfig:
    return AppConfig.model_validate(json.loads(text))
