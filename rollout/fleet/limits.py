"""How long each phase of a conversation with a host may take, and how much is kept."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds, unless the name says otherwise."""

    connect_s: float = 10
    banner_s: float = 10  # banner and key exchange
    auth_s: float = 15
    channel_s: float = 10  # a session on an open connection
    warm_s: float = 3  # the same, on a connection that has been idle: it may be dead
    exec_s: float = 20  # from the command to the first line of its answer
    stall_s: float = 30  # a transfer that does not move
    pool_size: int = 2000  # connections kept open
    idle_s: float = 600
    connect_burst: int = 32  # connects at once, then paced: a bastion's accept queue is 128
    connects_per_s: float = 200
    output_bytes: int = 4 * 1024 * 1024  # a host that prints more than this is cut
