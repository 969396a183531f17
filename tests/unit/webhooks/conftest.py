"""Recorded payloads, and apps to find for them."""

import json
from pathlib import Path

import pytest

from rollout.config.deploy_file import AppConfig

PAYLOADS = Path(__file__).parent / "payloads"


@pytest.fixture
def payload():
    """The bytes of a payload, changed by a function if one is given."""

    def payload(name, change=None):
        body = (PAYLOADS / f"{name}.json").read_bytes()
        if change is None:
            return body
        found = json.loads(body)
        change(found)
        return json.dumps(found).encode()

    return payload


@pytest.fixture
def an_app():
    """An app with this repository and branch."""

    def an_app(name, repository, branch="main", webhook_repository=""):
        return AppConfig.model_validate(
            {
                "name": name,
                "repository": repository,
                "branch": branch,
                "webhook_repository": webhook_repository,
                "release": {"path": f"/srv/{name}"},
                "canary": {"log": "/l"},
                "fleet": {"hosts": ["web1"]},
            }
        )

    return an_app
