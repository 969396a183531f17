"""The canary's judge and its peers on simulated traces; their table is printed at once."""

from tests.bench import judge_table
from tests.bench.ask import Ask, say
from tests.bench.report import Found


def measure(ask: Ask) -> Found:
    """docs/judge.md."""
    judge_table.show(judge_table.measure(ask.judge_runs, say))
    return Found(judge_table.figures(judge_table.PROMISED_RUNS, say))
