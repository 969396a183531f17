"""Whom we tell: one sender, Apprise, which knows Slack, mail, Teams and a hundred others by their addresses."""

from rollout.notify.apprise_notifier import AppriseNotifier

__all__ = ["AppriseNotifier"]
