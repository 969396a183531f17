"""`python -m rollout` is `rollout`."""

from rollout.cli.entry import run

if __name__ == "__main__":
    run()
