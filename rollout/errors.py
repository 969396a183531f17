"""Every exception that we raise; each says whether trying again makes sense (marked *).

RolloutError
├─ ConfigError ─ UnknownName                      somebody must edit something: path, found, expected
├─ NotFound                                       no such rollout, host, commit, branch
├─ Conflict                                       not in the present state
│   ├─ IllegalTransition                          absent from the table in domain/states.py
│   ├─ StaleWrite                                 a guarded UPDATE found another version of the row
│   └─ LeaseLost                                  somebody else has the row now
├─ ServiceUnavailable*                            broker, database or git server does not answer
├─ HostError                                      counted against the budget
│   ├─ Unreachable*                               nothing was asked of the host: connect, banner, login
│   ├─ HostKeyRefused · AuthRefused               a person must look at the host
│   ├─ StepFailed                                 the host said no: broken
│   │   ├─ Unhealthy                              the release's own fault: its restart or its health check failed
│   │   ├─ Interrupted                            the host's fault: a reboot, a kill, a lost disk
│   │   └─ StepRefused                            fenced
│   ├─ NoSpace                                    the host's disk is full
│   └─ OutcomeUnknown                             asked, and no answer: only reading the host tells
├─ ProviderError ─ MetricUnavailable*, DeliveryFailed*
├─ ReleaseError                                   a commit that cannot be checked out, built or packed
├─ SignatureInvalid                               a webhook that is not from whom it says
└─ Unreadable                                     a webhook that is signed and makes no sense
"""

from typing import ClassVar


class RolloutError(Exception):
    """What went wrong, where, and what to do now."""

    retryable: ClassVar[bool] = False

    def __init__(self, message: str = "", *, remedy: str = "") -> None:
        super().__init__(message or (self.__doc__ or "").strip().splitlines()[0])
        self.remedy = remedy


class ConfigError(RolloutError):
    """The configuration needs an edit."""


class UnknownName(ConfigError):
    """A name that is not in the table of known ones."""

    def __init__(self, what: str, found: str, known: list[str]) -> None:
        super().__init__(
            f"{what}: unknown name {found!r}; known are {', '.join(sorted(known))}",
            remedy=f"use one of: {', '.join(sorted(known))}",
        )


class NotFound(RolloutError):
    """There is no such thing."""


class Conflict(RolloutError):
    """Not possible in the present state."""


class IllegalTransition(Conflict):
    """The state machine has no such edge."""


class StaleWrite(Conflict):
    """The row has changed since it was read."""


class LeaseLost(Conflict):
    """The lease on this row ran out or was taken over."""


class ServiceUnavailable(RolloutError):
    """A service that is needed does not answer."""

    retryable = True


class HostError(RolloutError):
    """A step failed on a host."""


class Unreachable(HostError):
    """The host could not be reached; nothing was asked of it."""

    retryable = True


class HostKeyRefused(HostError):
    """The host's key is unknown or has changed."""


class AuthRefused(HostError):
    """The host refused our key."""


class StepFailed(HostError):
    """The host carried the step out and it failed."""


class Unhealthy(StepFailed):
    """The release did not come up: its restart or its health check failed, by the host's own word."""


class Interrupted(StepFailed):
    """The step had no end on the host (a reboot, a kill, a lost disk); that says nothing of the release."""


class StepRefused(StepFailed):
    """The host's fence refused the step."""


class NoSpace(HostError):
    """The host's disk is full or the path cannot be written."""


class OutcomeUnknown(HostError):
    """The host was asked and did not answer: only reading it tells."""


class ProviderError(RolloutError):
    """A neighbour (metrics, notifications) failed."""


class MetricUnavailable(ProviderError):
    """The canary's numbers could not be read."""

    retryable = True


class DeliveryFailed(ProviderError):
    """A notification could not be delivered."""

    retryable = True

    def __init__(self, message: str = "", *, remedy: str = "", numbers: tuple[int, ...] = ()) -> None:
        super().__init__(message, remedy=remedy)
        self.numbers = numbers  # of the addresses that did not take it, from 1; none: nobody knows


class ReleaseError(RolloutError):
    """A commit that cannot be checked out, built or packed."""


class SignatureInvalid(RolloutError):
    """The signature is missing or wrong."""


class Unreadable(RolloutError):
    """A message from outside that cannot be read."""
