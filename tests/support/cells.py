"""The cells of the sweep: at which crashpoint, in which stage, and what else must happen so that it is reached.

`CELLS` is every pair that can be; `LEFT_OUT` names every other pair with its reason, so that none is forgotten.
"""

from typing import NamedTuple

from rollout.crashpoints import POINTS, STAGES

TALK = ("before-connect", "after-connect")
CLAIM = ("before-claim", "in-claim", "after-claim")
SWITCH = (*TALK, "after-greeting", "after-permit", "after-permission", "after-answer")
REPORT = ("before-report", "in-report")
RING = ("before-ring", "after-ring")

REACHED: dict[str, tuple[str, ...]] = {
    "webhook": ("in-report", *RING),
    "tests": (*CLAIM, "tests-running", "after-tests", "after-build", *REPORT),
    "plan": ("in-decision", *RING),
    "prepare": (*CLAIM, *TALK, "mid-install", "mid-upload", "after-upload", *REPORT, *RING),
    "canary": (*SWITCH, *REPORT, "in-decision", *RING, "mid-ring"),
    "evaluation": ("before-claim", *TALK, "after-reading", "in-report", "in-decision"),
    "activate": (*CLAIM, *SWITCH, *REPORT, *RING, "in-decision", "mid-ring"),
    "count": ("in-decision", *RING, "mid-ring"),
    "read": (*CLAIM, *TALK, *REPORT, *RING),
    "stop": (
        "in-decision",
        "before-revoke",
        *CLAIM,
        *TALK,
        "after-seal",
        "in-acknowledgement",
        *RING,
        "mid-ring",
    ),
    "rollback": (*CLAIM, *SWITCH, *REPORT, *RING, "in-decision"),
    "leases": ("before-renewal",),
}

_ONLY = {
    "before-renewal": "leases are renewed by a thread of their own, for whatever is held",
    "tests-running": "only tests run a test command",
    "after-tests": "only tests run a test command",
    "after-build": "only tests build",
    "mid-install": "host.sh is installed by the first conversation with a host, which is a prepare",
    "mid-upload": "only a prepare sends an archive",
    "after-upload": "only a prepare sends an archive",
    "after-greeting": "only a switch greets: canary, activate, rollback",
    "after-permit": "only a switch is permitted: canary, activate, rollback",
    "after-permission": "only a switch is permitted: canary, activate, rollback",
    "after-answer": "only a switch is answered: canary, activate, rollback",
    "after-reading": "only the evaluation reads the canary's log",
    "before-revoke": "only a stop revokes",
    "after-seal": "only a stop seals; a read's seal is its status",
    "in-acknowledgement": "only a stop is acknowledged",
    "mid-ring": "here one message is sent at a time, or none",
}
_WHERE = {
    (
        "canary",
        "before-claim",
    ): "a claim tells which host is a canary: the cell is activate's, armed from the start",
    (
        "canary",
        "in-claim",
    ): "a claim tells which host is a canary: the cell is activate's, armed from the start",
    (
        "canary",
        "after-claim",
    ): "a claim tells which host is a canary: the cell is activate's, armed from the start",
}
_NOTHING = {
    "webhook": "the web neither claims nor reaches hosts: it stores a delivery",
    "tests": "tests reach no host, and planning sends the message that follows",
    "plan": "planning claims nothing: the index of active rollouts is its guard",
    "prepare": "a prepare decides nothing",
    "evaluation": "its look is claimed and decided in the transactions that are named here; a chain goes on by itself",
    "count": "counting is one transaction, and reaches no host",
    "read": "a reading decides nothing",
    "stop": "a stop reports by its acknowledgement",
    "rollback": "a rollback revokes and acknowledges nothing",
    "leases": "renewing is one statement",
    "canary": "the stage decides in one transaction",
    "activate": "the stage decides in one transaction",
}


class Cell(NamedTuple):
    stage: str
    point: str

    def __str__(self):
        return f"{self.stage}.{self.point}"


CELLS = [Cell(stage, point) for stage in STAGES for point in REACHED[stage]]
LEFT_OUT = {
    Cell(stage, point): _WHERE.get((stage, point)) or _ONLY.get(point) or _NOTHING[stage]
    for stage in STAGES
    for point in POINTS
    if point not in REACHED[stage]
}
