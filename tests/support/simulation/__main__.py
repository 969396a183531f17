"""`python -m tests.support.simulation SEED`: the story of a seed, step by step. `FIRST-LAST`: what these seeds find."""

import argparse
import sys
import time

from tests.support.simulation.simulation import Finding, Simulation


def main() -> int:
    """1 when something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.simulation", description=__doc__)
    parser.add_argument("seeds", metavar="SEED[-LAST]")
    parser.add_argument("--digest", action="store_true", help="what each run came to, in one line")
    asked = parser.parse_args()
    first, _, last = asked.seeds.partition("-")
    if last or asked.digest:
        return _many(range(int(first), int(last or first) + 1), digest=asked.digest)
    return _one(int(first))


def _one(seed: int) -> int:
    run = Simulation(seed)
    try:
        run.run()
        end = ""
    except Finding as finding:
        end = str(finding)
    for seconds, what in run.story:
        print(f"{seconds:9.3f}", *what)
    print(end or f"seed {seed}: nothing to accuse, {run.digest}")
    return int(end != "")


def _many(seeds: range, *, digest: bool) -> int:
    found, began = 0, time.process_time()
    for seed in seeds:
        try:
            run = Simulation(seed).run()
        except Exception as error:  # noqa: BLE001  # when the product breaks, that is a finding too
            found += 1
            print(error if isinstance(error, Finding) else f"seed {seed}: {error!r}", flush=True)
        else:
            if digest:
                print(seed, run.digest)
    if not digest:
        rate = len(seeds) / (time.process_time() - began)
        print(f"{len(seeds)} seeds, {found} findings, {rate:.1f} a second of one core")
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
