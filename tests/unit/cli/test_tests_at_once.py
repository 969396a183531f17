"""How many commits one worker process tests at a time."""

import pytest

from rollout.cli import processes
from tests.support.fakes import a_config


@pytest.mark.parametrize(
    ("parallel", "processors", "at_once"), [((1, 1), 4, 2), ((1, 1), 1, 1), ((3, 1), 2, 3), ((2, 2), 3, 3)]
)
def test_all_apps_together_but_no_more_than_there_are_processors(
    tmp_path, monkeypatch, parallel, processors, at_once
):
    """Two apps do not wait for each other where there is a processor for each; what one app asks for it gets."""
    config = a_config(tmp_path, apps=("shop", "blog"))
    monkeypatch.setattr(processes.os, "cpu_count", lambda: processors)
    for app, number in zip(config.apps.values(), parallel, strict=True):
        object.__setattr__(app, "tests", app.tests.model_copy(update={"parallel": number}))
    assert processes._tests_at_once(config) == at_once
