"""The offline checker: did what DESIGN.md says always hold, as far as what is left can tell?

It decides by itself: of the product it uses the tables of states alone. Each rule reads a History and yields what it finds.
"""

from collections.abc import Callable, Iterator

from tests.support.checker import budget, limits, on_hosts, shipping, states
from tests.support.checker.history import History, Violation

RULES: tuple[Callable[[History], Iterator[Violation]], ...] = (
    states.legal,
    states.one_active,
    states.no_zombies,
    budget.within_bound,
    budget.nothing_counts_before_it_begins,
    budget.counters,
    budget.accepted_once,
    shipping.deliveries,
    shipping.tested,
    shipping.canary_first,
    shipping.forward,
    on_hosts.fence,
    on_hosts.stopped,
    on_hosts.told_early,
    on_hosts.after_the_canary,
    on_hosts.once_per_attempt,
    on_hosts.outcomes_are_true,
    on_hosts.recorded,
    on_hosts.newest_stands,
    on_hosts.never_back_to_it,
    on_hosts.read_before_anew,
    on_hosts.way_back,
    on_hosts.guilt,
    on_hosts.half_way,
    on_hosts.given_up,
    on_hosts.debts_are_paid,
    limits.no_secrets,
    limits.bounded,
)


def check(history: History) -> list[Violation]:
    """Everything that did not hold; empty when all did."""
    return [violation for rule in RULES for violation in rule(history)]
