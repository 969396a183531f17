"""What a peer is asked to do, and the words in which it answers. Imported by programs that run in the peers' environment."""

import json
import resource
import shlex
import sys
import time
from pathlib import Path

JOB = json.loads(Path(sys.argv[1]).read_text()) if len(sys.argv) > 1 else {}
SAID = ".said"  # the uploaded input, in the host's home


def with_file(host: dict[str, str]) -> str:
    """The command, for hosts that have its input as a file."""
    return f"{host['command']} <{SAID}"


def in_words(host: dict[str, str]) -> str:
    """The command with its input in the command line: possible where no archive is in it."""
    return f"printf %s {shlex.quote(Path(host['input']).read_text())} | {host['command']}"


class Clock:
    """Wall and CPU from here on."""

    def __init__(self) -> None:
        self._began, self._spent = time.monotonic(), _cpu_s()

    def tell(self, answers: list[str]) -> None:
        """Print what it took; every host must have said that it did both steps, or the one."""
        seconds, cpu_s = time.monotonic() - self._began, _cpu_s() - self._spent
        bad = [answer for answer in answers if not answer.rstrip().endswith("end=0")]
        if bad or len(answers) != len(JOB["hosts"]):
            sys.exit(f"{len(answers)} answers, {len(bad)} of them bad: {bad[:1]}")
        print(json.dumps({"seconds": seconds, "cpu_s": cpu_s}))


def _cpu_s() -> float:
    usage = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in usage)
