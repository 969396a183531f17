"""What `resume` and `retry` do, and the wait for what comes of it."""

from rollout.cli import finding, following, output, scene, shapes
from rollout.cli.call import Call, who
from rollout.cli.failures import OK
from rollout.cli.tellers import teller
from rollout.domain.model import Rollout, RolloutId
from rollout.domain.states import RolloutState
from rollout.services import halts


def resume(
    call: Call,
    number: int,
    reason: str | None,
    *,
    accept_failed: bool,
    accept_canary: bool,
    wait: bool,
    timeout_s: float | None,
) -> int:
    """Go on with the stage it halted in."""
    rollout = halts.resume(
        RolloutId(number),
        call.deps,
        who=who(),
        why=reason,
        accept_failed=accept_failed,
        accept_canary=accept_canary,
    )
    return _go_on(call, rollout, wait=wait, timeout_s=timeout_s)


def retry(call: Call, number: int, *, wait: bool, timeout_s: float | None) -> int:
    """Try the failed hosts again."""
    rollout = halts.retry(RolloutId(number), call.deps, who=who())
    return _go_on(call, rollout, wait=wait, timeout_s=timeout_s)


def _go_on(call: Call, rollout: Rollout, *, wait: bool, timeout_s: float | None) -> int:
    following.warn_if_nobody_hears(call)
    view = finding.view(call, rollout.id)
    if view["hotfix"] and not call.json:
        output.say(f"hotfix, {output.clean(view['hotfix'])}")
    if not wait:
        if call.json:
            output.document(shapes.outcome(view))
        else:
            output.say(scene.headline(view))
            if rollout.state is RolloutState.EVALUATING_CANARY:
                accept = f"rollout resume {rollout.id} --accept-canary --reason …"
                output.say(f"its canary is watched anew; should it be in doubt again: {accept}")
        return OK
    with teller(as_json=call.json) as told:
        ended = following.to_its_end(call, rollout.id, told, timeout_s)
    if call.json:
        output.document(shapes.outcome(finding.view(call, ended.id)))
    else:
        following.tell_end(call, ended)
    return following.exit_code(ended)
