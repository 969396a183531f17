"""What `rollout check` looks at: services first, then every host at once, then the canary's source."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rollout import wiring
from rollout.cli import canary_source, output
from rollout.cli.call import Call, log_quietly, who
from rollout.cli.failures import FAILED, OK
from rollout.cli.findings import Finding, fine, grouped, of_error, problem, warning
from rollout.cli.host_report import report
from rollout.cli.scene import Bar
from rollout.cli.tellers import Teller, teller
from rollout.config import deploy_file
from rollout.config.deploy_file import AppConfig
from rollout.domain import plan
from rollout.errors import RolloutError, ServiceUnavailable
from rollout.services import editions
from rollout.services.targets import member_target

if TYPE_CHECKING:
    from rollout.domain.model import Member
    from rollout.services.ports import Deps

THREADS = 32
HOST_TIMEOUT_S = 30.0


def run(call: Call) -> int:
    """Look at everything, print what was found; the exit code."""
    config = deploy_file.load(call.config_path)  # as a whole
    deps = wiring.wire(config, role="cli")
    log_quietly(deps.settings)
    try:
        apps = [config.app(call.app_name)] if call.app_name else list(config.apps.values())
        with teller(as_json=call.json) as told:
            found = list(_Inspection(deps, apps, told).findings())
    finally:
        deps.fleet.close()
        deps.store.close()
    if call.json:
        output.document(
            {"ok": not any(one.error for one in found), "findings": [one.document() for one in found]}
        )
    else:
        _print(found)
    return _exit_code(found)


@dataclass(slots=True)
class _Inspection:
    """One look at everything."""

    deps: "Deps"
    apps: list[AppConfig]
    told: Teller

    def findings(self) -> Iterator[Finding]:
        """Everything, in the order in which a person would mend it."""
        yield from self._configuration()
        yield from _asked("database", self._database)
        yield from _asked("broker", self._broker)
        for app in self.apps:
            yield from _asked(f"{app.name}: repository", partial(self._repository, app))
            yield from self._fleet(app)

    def _configuration(self) -> Iterator[Finding]:
        config = self.deps.config
        yield fine("configuration", str(config.path))
        for text in config.warnings:
            what, _, remedy = text.rpartition(": ")
            yield warning("configuration", what or text, remedy if what else "")

    def _database(self) -> Iterator[Finding]:
        server = self.deps.config.server
        place = server.state_dir / "rollout.db"
        if server.database == "sqlite" and not place.exists():
            yield _writable(place)
            return
        ready = self.deps.store.ready()
        yield fine(
            "database", self.deps.store.place if ready else "answers; its schema comes with the first use"
        )
        if not ready:
            return
        with self.deps.store.reading() as tx:
            other = editions.other(tx, self.deps.config)
        if other is not None:
            what, _, remedy = other.partition(": ")
            yield warning("configuration", what, remedy)

    def _broker(self) -> Iterator[Finding]:
        from rollout.supervisor import broker

        if self.deps.bell.alive():
            yield fine("broker", "answers")
        elif self.deps.config.server.broker == "embedded":
            broker.check_socket(self.deps.config.server.socket)
            yield fine("broker", f"embedded ({broker.binary()}); starts with `rollout up`")
        else:
            raise ServiceUnavailable("does not answer", remedy="start it, or correct [server] broker")

    def _repository(self, app: AppConfig) -> Iterator[Finding]:
        self.told.show([Bar(f"{app.name} repository", 0, None, "asked for its branch")])
        head = self.deps.workshop.remote_head(app.name, app)
        yield fine(f"{app.name}: repository", f"branch {app.branch} is at {output.short(head)}")

    def _fleet(self, app: AppConfig) -> Iterator[Finding]:
        try:
            members = self.deps.fleet.members(app)
            canary = set(plan.canary_hosts([one.name for one in members], app.canary.hosts))
        except RolloutError as error:
            yield of_error(f"{app.name}: fleet", error)
            return
        found: dict[str, list[Finding]] = {}
        with ThreadPoolExecutor(max(1, min(THREADS, len(members)))) as pool:
            asked = {pool.submit(self._host, app, one, canary=one.name in canary): one for one in members}
            for done, future in enumerate(as_completed(asked), start=1):
                found[asked[future].name] = future.result()
                self.told.show([Bar(f"{app.name} hosts", done, len(members), asked[future].name)])
        all_found = [finding for one in members for finding in found[one.name]]
        yield from (finding for finding in all_found if not finding.ok)
        well = sum(all(finding.error is None for finding in found[one.name]) for one in members)
        yield fine(f"{app.name}: hosts", f"{well} of {output.count(len(members), 'host')} are ready")
        yield from (finding for finding in all_found if finding.ok)

    def _host(self, app: AppConfig, member: "Member", *, canary: bool) -> list[Finding]:
        where = f"{app.name}: host {member.name}"
        target = member_target(member, app)
        try:
            told = self.deps.fleet.check(target, timeout_s=HOST_TIMEOUT_S)
            source = [canary_source.look(where, app, member, told, self.deps)] if canary else []
            return report(where, told, member) + source
        except RolloutError as error:
            return [of_error(where, error)]


def _asked(what: str, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from look()
    except RolloutError as error:
        yield of_error(what, error)


def _writable(place: Path) -> Finding:
    folder = next(folder for folder in place.parents if folder.exists())
    if os.access(folder, os.W_OK | os.X_OK):
        return fine("database", f"{place}, made at the first use")
    return problem(
        "database",
        f"{folder} cannot be written",
        f"let {who().removeprefix('cli:')} write there, or set [server] state_dir",
    )


def _print(found: list[Finding]) -> None:
    for group in grouped(found):
        group[0].say()
        if len(group) > 1:
            names = output.names([one.what.rpartition(" ")[2] for one in group[1:]])
            output.say(f"         the same for: {names}")
    bad, doubtful = sum(one.error is not None for one in found), sum(one.level == "warning" for one in found)
    if bad:
        output.say(f"\n{output.count(bad, 'problem')}; nothing was touched")
    elif doubtful:
        output.say(f"\nready, with {output.count(doubtful, 'warning')}")
    else:
        output.say("\nready")


def _exit_code(found: list[Finding]) -> int:
    codes = {one.code for one in found if one.error is not None}
    if not codes:
        return OK
    return codes.pop() if len(codes) == 1 else FAILED
