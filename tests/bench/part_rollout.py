"""A whole rollout, and its stop when all hosts are touched, cold and warm, against ssh under xargs; SQLite, or PostgreSQL."""

from statistics import median

from tests.bench import processes
from tests.bench.ask import Ask, say
from tests.bench.installation import Installation, running
from tests.bench.report import Figure, Found
from tests.bench.rounds import Round, Rounds, restart_of

CONCURRENCY = 40
# What the floor's clients took for 100 hosts where it was said what ours may take (1.0 and 0.6 s, better 0.7 and 0.35): here
# a second may do more or less.
FLOOR_COLD_S, FLOOR_WARM_S = 1.07, 0.54
HOSTS_PER_BAKED_S = 10  # so long a bake that every host is prepared when it ends, also on a slow machine: at 25 up to 208 of 1,000 were not
WORKERS = ("control", "hosts", "tests", "web", "broker", "database", "beat")


def measure(ask: Ask, database: str = "sqlite") -> Found:
    """Rounds of floor and ours."""
    bake_s = 8 + ask.hosts // HOSTS_PER_BAKED_S
    restart = restart_of(ask.hosts)
    with running(
        ask.hosts, bake_s=bake_s, concurrency=CONCURRENCY, database=database, restart=restart
    ) as system:
        say(f"{database}: a first release on {ask.hosts} hosts")
        rounds = Rounds(system)
        found = []
        for number in range(1, ask.rounds + 1):
            say(f"{database}: round {number} of {ask.rounds}: ssh, then rollout")
            found.append(rounds.one())
        memory = _memory(system)
    return Found(
        _figures(ask.hosts, found, memory), _notes(ask.hosts, found), {"rounds": found, "memory_mb": memory}
    )


def measure_postgresql(ask: Ask) -> Found:
    """The same on PostgreSQL."""
    return measure(ask, "postgresql")


def _memory(system: Installation) -> dict[str, dict[str, float]]:
    """RSS and PSS of each part, its children included."""
    found: dict[str, dict[str, float]] = {}
    for pid, name in system.parts().items():
        if name in WORKERS:
            rss, pss = processes.memory_mb(pid)
            one = found.setdefault(name, {"rss": 0.0, "pss": 0.0, "processes": 0})
            one["rss"] += rss
            one["pss"] += pss
            one["processes"] += 1
    return found


def _figures(hosts: int, rounds: list[Round], memory: dict[str, dict[str, float]]) -> list[Figure]:
    def rate(title: str, ours: str, floor: str, goal: float) -> Figure:
        """Hosts a second, ours and the floor's, and the median of the rounds' own ratios."""
        pairs = [(getattr(one, ours).seconds, getattr(one, floor).seconds) for one in rounds]
        return Figure(
            f"{title}, hosts/s",
            "",
            hosts / median(mine for mine, _ in pairs),
            hosts / median(its for _, its in pairs),
            median(its / mine for mine, its in pairs),
            at_least=1.0,
            goal=goal,
        )

    def cpu(name: str) -> float:
        return median(getattr(one, name).cpu_s for one in rounds) * 100 / hosts

    def spent(
        what: str, ours: str, floor: str, at_most: float | None = None, goal: float | None = None
    ) -> Figure:
        ratio = cpu(ours) / cpu(floor)
        title = f"  client CPU for 100 hosts, {what}"
        return Figure(title, "s", cpu(ours), cpu(floor), ratio, at_most=at_most, goal=goal)

    first = median(one.first_back_s for one in rounds) * 1000
    return [
        rate("prepare + activate, cold", "cold", "floor_cold", 1.2),
        spent("cold", "cold", "floor_cold", round(1.0 / FLOOR_COLD_S, 2), round(0.7 / FLOOR_COLD_S, 2)),
        rate("activate, prepared and warm, ramp", "fan_out", "floor_activate", 1.3),
        spent(
            "activate",
            "fan_out",
            "floor_activate",
            round(0.6 / FLOOR_WARM_S, 2),
            round(0.35 / FLOOR_WARM_S, 2),
        ),
        rate("stop → all back, warm", "back", "floor_back", 1.3),
        spent("way back", "back", "floor_back"),
        Figure("stop acknowledged → first host back", "ms", first, at_most=300),
        *(Figure(f"RSS, {name}", "MB", memory[name]["rss"]) for name in WORKERS if name in memory),
    ]


def _notes(hosts: int, rounds: list[Round]) -> list[str]:
    def middle(name: str) -> float:
        return median(getattr(one, name).seconds for one in rounds)

    def parts(span: str) -> str:
        spent: dict[str, list[float]] = {}
        for one in rounds:
            for part, seconds in one.parts[span].items():
                spent.setdefault(part, []).append(seconds)
        told = sorted(((median(all_of), part) for part, all_of in spent.items()), reverse=True)
        return ", ".join(f"{part} {seconds:.2f}" for seconds, part in told if seconds >= 0.01)

    late = max(one.late for one in rounds)
    spans = (
        f"cold is {middle('cold'):.2f} s: {middle('prepare'):.2f} s from the first host begun to the last one prepared, "
        f"and {middle('fan_out'):.2f} s from PASS to all but one host done (ramp: from 1 to {CONCURRENCY})"
    )
    return [
        spans,
        *(f"CPU seconds for {hosts} hosts, {span}: {parts(span)}" for span in ("prepare", "fan_out", "back")),
        *([f"{late} hosts were prepared after PASS: the warm figure is too low"] if late else []),
    ]
