"""What beat rings: one more bell. The workers' own threads do the same without it."""

from rollout.domain import pipeline

SCHEDULE = {
    "reconcile": {"task": pipeline.RECONCILE, "schedule": 10.0, "options": {"expires": 10}},
    "poll": {"task": pipeline.POLL, "schedule": 10.0, "options": {"expires": 10}},
}
