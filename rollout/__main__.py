"""`python -m rollout` is `rollout`."""

from rollout.cli.main import run

if __name__ == "__main__":
    run()
