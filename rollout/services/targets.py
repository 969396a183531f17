"""How a host is reached."""

from rollout.config.deploy_file import AppConfig
from rollout.domain.model import Member, RolloutHost, Target


def target_of(host: RolloutHost, app: AppConfig) -> Target:
    """A host of a rollout, as it was when the rollout was planned."""
    return _target(host.name, host.address, host.port, host.user, host.path, app)


def member_target(member: Member, app: AppConfig) -> Target:
    """A host as it is configured now."""
    return _target(member.name, member.address, member.port, member.user, member.path, app)


def _target(name: str, address: str, port: int, user: str, path: str, app: AppConfig) -> Target:
    return Target(
        name=name,
        address=address,
        port=port,
        user=user,
        path=path,
        identity_file=str(app.fleet.identity_file) if app.fleet.identity_file else None,
        known_hosts=str(app.fleet.known_hosts),
    )
