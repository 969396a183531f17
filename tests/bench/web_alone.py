"""Only the web, on one core, with a broker that nobody listens to: what it takes in when nothing else is in its way."""

import os
import signal
import subprocess
import sys

from tests.support.system import System, free_port, wait_for


def cores() -> tuple[int, int]:
    """One for the web and one for everything else; the same one where there is only one."""
    ours = sorted(os.sched_getaffinity(0))
    return ours[0], ours[-1]


class WebAlone(System):
    """One host in its fleet, which nobody speaks to."""

    def __init__(self) -> None:
        self._redis: subprocess.Popen[bytes] | None = None
        self._broker = free_port()
        super().__init__(hosts=1, environment={"ROLLOUT_BROKER": f"redis://127.0.0.1:{self._broker}/0"})

    def start(self):
        """The broker and the web."""
        web, other = cores()
        self._redis = subprocess.Popen(
            [
                "taskset",
                "-c",
                str(other),
                "redis-server",
                "--port",
                str(self._broker),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
            ],
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        with (self.folder / "up.log").open("ab") as log:
            self.up = subprocess.Popen(
                [
                    "taskset",
                    "-c",
                    str(web),
                    sys.executable,
                    "-m",
                    "rollout",
                    "web",
                    "--config",
                    str(self.config),
                ],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=os.environ | self.environment,
                start_new_session=True,
            )
        wait_for(self.ready, seconds=60, why=f"the web to be ready, see {self.folder}/up.log")

    def stop(self):
        """Both end."""
        super().stop()
        if self._redis is not None:
            self._redis.send_signal(signal.SIGKILL)
            self._redis.wait()
