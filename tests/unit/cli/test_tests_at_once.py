"""How many commits one worker process tests at a time."""

import pytest

from rollout.cli import processes
from tests.support.fakes import a_config


@pytest.mark.parametrize(
    ("parallel", "processors", "at_once"),
    [((1, 1), 4, 2), ((1, 1), 1, 2), ((3, 1), 1, 4), ((1, 1, 1, 1), 1, 2), ((2, 2, 2), 2, 4), ((6, 6), 2, 7)],
)
def test_all_apps_together_but_no_more_than_two_for_each_processor(
    tmp_path, monkeypatch, parallel, processors, at_once
):
    """Two apps never wait for each other, nor does one take every place; what one app asks for it gets."""
    config = a_config(tmp_path, apps=("shop", "blog", "wiki", "mail")[: len(parallel)])
    monkeypatch.setattr(processes.os, "cpu_count", lambda: processors)
    for app, number in zip(config.apps.values(), parallel, strict=True):
        object.__setattr__(app, "tests", app.tests.model_copy(update={"parallel": number}))
    assert processes._tests_at_once(config) == at_once
