"""`rollout check`: look before anything is touched."""

from rollout.cli.call import Call


def check(call: Call) -> int:
    """Look at everything before anything is touched, and name each problem with its remedy.

    Configuration, secrets, repository and branch, broker, database, every host (reachable, key known, path writable,
    disk, tools, shell quick), and whether the canary's source gives data. Exit codes: 0 all is well · 2 configuration
    · 3 no such branch · 5 a service is unreachable · 1 a host is not ready, or problems of several kinds.
    """
    from rollout.cli import inspection

    return inspection.run(call)
