"""Beat's scheduler."""

from datetime import timedelta

import pytest
from celery import Celery

from workers.ringer import Ringer


def test_beat_ends_although_the_exit_was_lost_in_the_middle_of_a_message(monkeypatch):
    """TERM closes the scheduler; whatever becomes of the exit that follows, the round under way is the last one."""
    app = Celery(broker="memory://", set_as_current=False)
    app.conf.beat_schedule = {"poll": {"task": "poll", "schedule": 1.0}}
    ringer = Ringer(app)
    monkeypatch.setattr(ringer, "apply_async", lambda *_args, **_options: ringer.close())
    for entry in ringer.schedule.values():
        entry.last_run_at -= timedelta(hours=1)
    with pytest.raises(SystemExit):
        ringer.tick()
