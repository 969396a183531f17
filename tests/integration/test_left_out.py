"""A worker that begins while the table of one app is wrong works for the others."""

import json
import os
import subprocess
import sys

from tests.support.fakes import a_config

LOOK = """
import json, logging
from celery.signals import setup_logging
from workers.app import deps
setup_logging.send(sender=None)
config = deps().config
print(json.dumps([list(config.apps), list(config.left_out)]))
"""


def test_a_worker_begins_with_the_apps_whose_tables_are_right(tmp_path):
    """It says loudly which one is left out, and what is wrong with it."""
    config = a_config(tmp_path, apps=("shop", "blog"))
    config.path.write_text(f"{config.path.read_text()}[apps.blog.tests]\nretires = 3\n")
    environment = os.environ | {"ROLLOUT_CONFIG": str(config.path)}
    told = subprocess.run(
        [sys.executable, "-c", LOOK],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert told.returncode == 0, told
    assert json.loads(told.stdout.splitlines()[-1]) == [["shop"], ["blog"]]
    loud = told.stdout + told.stderr
    assert "app_left_out" in loud
    assert "apps.blog.tests.retires" in loud
