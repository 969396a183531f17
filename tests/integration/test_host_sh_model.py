"""ModelHost is host.sh: random orders to both, and after each the same answer, journal, marks, releases and `current`.

What the simulation proves it proves of the real program only as far as this holds.
"""

import os
import random
import signal

import pytest

from tests.conftest import ALL_FAULTS
from tests.support.host_sh import A, B, C, Host, a_release, header, hosts
from tests.support.model_host import FOREIGN, HEALTH, SENDING, Call, ModelHost
from tests.support.processes import until

host = hosts(*(("dash", "busybox") if ALL_FAULTS else ("dash",)))
WALKS = 150 if ALL_FAULTS else 20
RELEASES = {commit: a_release(commit) for commit in (A, B, C)}
OTHER = {commit: a_release(commit, {"app": "other bytes"}) for commit in (A, B, C)}
ROOMY_MS = 60_000
# A moment of a switch: the tool that host.sh calls there, with which words, and whether it has done its work by then.
HOOKS = {
    "intent": ("sync", r".rollout/journal\ .rollout", True),
    "allowed": ("mv", "*next?current", False),
    "switched": ("mv", "*next?current", True),
    "written": ("sync", ".rollout/journal", False),
    "recorded": ("sync", ".rollout/journal", True),
}


class Both:
    """A real host and its model, which are told the same."""

    def __init__(self, real: Host, seed: int) -> None:
        self.real, self.model = real, ModelHost("web1")
        self.chance = random.Random(seed)
        self.epoch, self.operation = 1, 0
        self.told: list[str] = []
        # BusyBox's `ls -t` knows seconds, and these orders come faster: which release is the newest it cannot tell.
        self.keeps = [5] if real.shell.name == "busybox" else [2, 3, 5]

    # -- what both are told ----------------------------------------------------------------------------------------------

    def go(self) -> None:
        turns = [self.prepare, self.prepare, *[self.switch] * 5, self.status, self.clean]
        self.prepare()
        self.prepare()
        for _ in range(20):
            self.chance.choice([*turns, self.foreign_link])()

    def numbers(self) -> dict[str, int]:
        """An epoch and an operation number: mostly the next ones, sometimes old, equal or known ones."""
        chance = self.chance
        self.epoch += chance.choice([0, 0, 1])
        self.operation += 1
        epoch = self.epoch if chance.random() < 0.85 else chance.randint(1, self.epoch + 1)
        known = [one.operation for one in self.model.records]
        op = self.operation
        if chance.random() < 0.2:
            op = chance.choice([*known, chance.randint(1, self.operation)])
        return {"epoch": epoch, "op": op}

    def prepare(self) -> None:
        commit = self.chance.choice([A, B, C])
        wanted = (RELEASES if self.chance.random() < 0.9 else OTHER)[commit]
        arrives = self.chance.choice([wanted] * 8 + [OTHER[commit], None])
        keys = self.numbers() | {
            "commit": commit,
            "digest": wanted.digest,
            "keep": self.chance.choice(self.keeps),
            "spare": self.chance.sample([A, B, C], self.chance.choice([0, 1])),
        }
        archive = (arrives or wanted).archive
        talk = self.real.start("prepare", keys | {"size": len(archive)})
        talk.heard.append(talk._lines.get(timeout=30) or "")
        if talk.heard[0] == "send=yes" and arrives:
            talk.send(archive)
        talk.hang_up()
        call = Call(self.model, "prepare", **keys)
        steps = call.run()
        if next(steps, None) == SENDING:
            finish(steps, arrives.digest if arrives else None)
        self.compare("prepare", keys, talk.reply().lines, call)

    def switch(self) -> None:
        """An activation or a rollback; it may be held at a moment, for others to come between, and be killed there."""
        verb, keys, within = self.an_order()
        moment = self.chance.choice([None, None, *HOOKS, "restart"])
        if moment is None or within == 0:
            self.compare(verb, keys, self.tell(verb, keys, within), self.model_switch(verb, keys, within))
            return
        call = Call(self.model, verb, **keys)
        steps = call.run()
        next(steps)
        reached = advance(steps, within, moment)
        waits = self.real.shadows / "waits"
        if moment != "restart":
            tool, when, after = HOOKS[moment]
            if tool == "mv" and keys["commit"] is None:
                tool, when = "rm", r"-f\ current"
            work = f'"$real" "$@"; status=$?; {once(waits)}; exit $status' if after else once(waits)
            self.real.shadow(tool, f'case "$*" in {when}) {work} ;; esac\nexec "$real" "$@"')
        talk = self.real.start(verb, real_keys(keys, held=once(waits) if moment == "restart" else ""))
        talk.greeted().within(within)
        if not reached:
            self.real_ends(talk, verb, keys, call)
            return
        until(waits.exists, what=f"{moment} of {keys}, told {self.told}")
        self.told.append(f"{verb} {keys} is held at {moment}")
        for _ in range(self.chance.choice([0, 1, 1, 2])):
            self.chance.choice([self.status, self.status, self.intrude])()
        if self.chance.random() < 0.5:
            self.kill(talk, steps)
            return
        waits.unlink()
        finish(steps)
        self.real_ends(talk, verb, keys, call)

    def an_order(self) -> tuple[str, dict[str, object], int]:
        chance = self.chance
        verb = chance.choice(["activate", "activate", "rollback"])
        commit = chance.choice([A, B, C] if verb == "activate" else [A, B, C, None, FOREIGN])
        digest = RELEASES[commit].digest if commit in RELEASES else ""
        if digest and chance.random() < 0.08:
            digest = "" if verb == "rollback" else "d" * 64
        elif digest and chance.random() < 0.08:
            digest = "d" * 64
        health = chance.random() < 0.8
        self.model.unhealthy = set(chance.sample([A, B, C], chance.choice([0, 0, 1, 2])))
        keys = self.numbers() | {
            "commit": commit,
            "digest": digest,
            "restart": chance.random() < 0.6,
            "broken_restart": chance.choice([(), (), (A,), (B, C)]),
            "health": health,
            "unhealthy": frozenset(self.model.unhealthy),
            "health_timeout": 0,
        }
        if verb == "activate" and chance.random() < 0.2:
            keys["back"] = chance.choice([A, B, C, None, FOREIGN])
        return verb, keys, chance.choice([ROOMY_MS] * 6 + [0])

    def intrude(self) -> None:
        """Another switch while the lock is held: it has no time to wait, but may leave its mark."""
        unhealthy = self.model.unhealthy
        verb, keys, _ = self.an_order()
        self.model.unhealthy = unhealthy
        self.compare(verb, keys, self.tell(verb, keys, 0), self.model_switch(verb, keys, 0))

    def status(self) -> None:
        known = [one.operation for one in self.model.records]
        keys: dict[str, object] = {"op_asked": self.chance.choice([0, self.operation, *known])}
        if self.chance.random() < 0.5:
            keys |= self.numbers() | {"wait": 0}
        call = Call(self.model, "status", **keys)
        finish(call.run())
        self.compare("status", keys, self.real.call("status", keys).lines, call)

    def clean(self) -> None:
        keys = {"keep": self.chance.choice(self.keeps), "spare": self.chance.sample([A, B, C], 1)}
        call = Call(self.model, "clean", **keys)
        finish(call.run())
        self.compare("clean", keys, self.real.call("clean", keys).lines, call)

    def foreign_link(self) -> None:
        """Somebody else has pointed `current` elsewhere."""
        if self.chance.random() < 0.7:
            return
        link = self.real.root / "current"
        link.unlink(missing_ok=True)
        link.symlink_to("/tmp")
        self.model.current = FOREIGN
        self.told.append("a link of somebody else's")

    # -- one of the two --------------------------------------------------------------------------------------------------

    def tell(self, verb, keys, within) -> list[str]:
        return self.real.start(verb, real_keys(keys)).greeted().within(within).reply().lines

    def model_switch(self, verb, keys, within) -> Call:
        call = Call(self.model, verb, **keys)
        steps = call.run()
        next(steps)
        finish(steps, within)
        return call

    def kill(self, talk, steps) -> None:
        """Kill -9 of all that runs, and perhaps another boot: what was written stays."""
        os.killpg(talk.process.pid, signal.SIGKILL)
        talk.kill()
        self.real.unshadow()
        self.real.end_all()
        self.real.quiet()
        steps.close()
        if self.chance.random() < 0.3:
            journal = self.real.fence / "journal"
            journal.write_text(journal.read_text().replace("boot=", "boot=0"))
            self.model.reboot()
        self.told.append("kill -9")
        self.same()

    def real_ends(self, talk, verb, keys, call) -> None:
        lines = talk.reply().lines
        self.real.unshadow()
        self.compare(verb, keys, lines, call)

    # -- are they the same? ----------------------------------------------------------------------------------------------

    def compare(self, verb, keys, lines, call) -> None:
        self.told.append(f"{verb} {keys} → {spoken(call.lines)}")
        assert spoken(lines) == spoken(call.lines), self.told
        self.same()

    def same(self) -> None:
        real, model = self.real, self.model
        assert [of_real(record) for record in real.records()] == [*map(of_model, model.records)], self.told
        marks = real.fence / "raised"
        assert {file.name for file in marks.glob("*")} == {f"{e}-{o}" for e, o in model.marks}, self.told
        assert {name for name in real.releases if name[0] != "."} == set(model.prepared), self.told
        links = {None: None, FOREIGN: "/tmp"}
        assert real.current == links.get(model.current, f"releases/{model.current}"), self.told


def finish(steps, value=None) -> None:
    """Drive the model to its end; health is tried once."""
    while True:
        try:
            value = steps.send(value) == HEALTH
        except StopIteration:
            return


def advance(steps, value, moment) -> bool:
    """Drive the model to this moment; False when it ended before."""
    while True:
        try:
            reached = steps.send(value)
        except StopIteration:
            return False
        if reached == moment:
            return True
        value = reached == HEALTH


def once(waits) -> str:
    """A command that waits until the file is gone that it makes; the second time it does nothing."""
    wait = f'echo >"{waits}"; echo >"{waits}-no-more"; while [ -e "{waits}" ]; do sleep 0.02; done'
    return f'if [ ! -e "{waits}-no-more" ]; then {wait}; fi'


def real_keys(keys, *, held="") -> str:
    """The header that the model's keys are: what is unhealthy there is so by its commands."""
    asks = "case $COMMIT in none{}) exit 1 ;; esac"
    broken, unhealthy = ("".join(f"|{one}" for one in keys[name]) for name in ("broken_restart", "unhealthy"))
    return header(
        {
            "epoch": keys["epoch"],
            "op": keys["op"],
            "host": "web1",
            "commit": keys["commit"] or "none",
            "digest": keys["digest"],
            "restart": [held, asks.format(broken)] if keys["restart"] else None,
            "restart_limit": 30,
            "health": asks.format(unhealthy) if keys["health"] else None,
            "health_timeout": keys["health_timeout"],
            "back": (keys["back"] or "none") if "back" in keys else None,
        }
    )


def spoken(lines) -> list[str]:
    """A reply without what differs between any two hosts."""
    return [line for line in lines if line.partition("=")[0] not in {"clock", "boot", "output", "detail"}]


def of_real(record) -> tuple[object, ...]:
    names = ("op", "epoch", "verb", "what", "commit", "from", "open")
    ends = ("code", "reason", "switched", "put_back", "already")
    return (*(record[name] for name in names), *(record.get(name) for name in ends))


def of_model(entry) -> tuple[object, ...]:
    def word(value: bool | None) -> str:
        return "yes" if value else "no"

    ended = entry.code is not None
    return (
        str(entry.operation),
        str(entry.epoch),
        entry.verb,
        entry.what,
        entry.commit or "none",
        entry.came_from or "none",
        word(entry.open),
        str(entry.code) if ended else None,
        entry.reason.replace(" ", "_") or None,
        word(entry.switched) if ended and not entry.already else None,
        word(entry.put_back) if ended and not entry.already else None,
        "yes" if entry.already else None,
    )


@pytest.mark.parametrize("seed", range(WALKS))
def test_the_model_and_the_program_are_one(host, seed):
    """Whatever they are told, in whatever order, killed and overtaken at any moment, both say and leave the same."""
    Both(host, seed).go()
