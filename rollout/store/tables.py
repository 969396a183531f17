"""The tables. Column names are the field names of `domain/model.py`.

Guarded by the database itself: at most one active and one pending rollout per app (I1, two partial unique
indexes, which only the migrations know: a condition here would load the dialects of all databases at every start).
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
)


class Utc(TypeDecorator[datetime]):
    """A UTC datetime; SQLite forgets the zone, so it is put back on the way out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Aware, whatever the database kept."""
        del dialect
        if not isinstance(value, datetime):
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


# SQLite makes only INTEGER PRIMARY KEY columns count by themselves.
Id = BigInteger().with_variant(Integer, "sqlite")

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

facts = Table(
    "facts",
    metadata,
    Column("name", String(50), primary_key=True),
    Column("value", Text, nullable=False),
)

apps = Table(
    "apps",
    metadata,
    Column("name", String(100), primary_key=True),
    Column("epoch", BigInteger, nullable=False, default=0),
    Column("poll_due_at", Float, nullable=False, default=0.0),
    Column("poll_failures", Integer, nullable=False, default=0),
    Column("poll_silent", Boolean, nullable=False, default=False, server_default=false()),
    # store clock; when the git server was asked last, and until when he holds that who is at it
    Column("looked_s", Float),
    Column("told_s", Float),  # store clock; when a webhook told last of a head that may be the branch's
    Column("read_s", Float),  # store clock; when the last reading of the branch that git answered began
    Column("answered_s", Float),  # store clock; and when it ended
    Column("note", Text),  # why nothing is being started now, for people
    Column("frozen_at", Utc),
    Column("frozen_until", Utc),
    Column("frozen_by", Text),
    Column("frozen_reason", Text),
    Column("members_read_at", Float),  # store clock: when somebody last looked for hosts that are behind
    Column("red_told", String(40)),  # the first red commit of the branch that people were told of
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Id, primary_key=True),
    Column("received_at", Utc, nullable=False),
    Column("provider", String(30), nullable=False),
    Column("delivery", String(200), nullable=False),
    Column("app", String(100)),
    Column("branch", String(300)),
    Column("head", String(40)),
    Column("outcome", String(30), nullable=False),
    Column("reason", Text, nullable=False),
    Column("ref", String(60)),  # what the outcome names: "rollout 7", "commit 1a2b…", "delivery 3"
    Column("settled_at", Utc),  # null: it has not come to its end yet
    Index(None, "outcome", "app", "head"),
)

commits = Table(
    "commits",
    metadata,
    Column("id", Id, primary_key=True),
    Column("app", String(100), nullable=False),
    Column("sha", String(40), nullable=False),
    Column("state", String(20), nullable=False),
    Column("version", Integer, nullable=False, default=1),
    Column("position", Integer),
    Column("on_branch", Boolean, nullable=False, default=True),
    Column("subject", Text, nullable=False, default=""),
    Column("author", Text, nullable=False, default=""),
    Column("message", Text, nullable=False, default=""),
    Column("received_at", Utc, nullable=False),
    Column("received_s", Float),  # store clock; null: not known (an older version, another boot)
    Column("tested_at", Utc),
    Column("reason", Text),
    Column("bar_wanted", Text),
    Column("suspect", Boolean, nullable=False, default=False),
    Column("suspect_of", Id),
    Column("now_reason", Text),
    Column("now_by", Text),
    Column("attempt", Integer, nullable=False, default=0),
    Column("reds", Integer, nullable=False, default=0, server_default="0"),
    Column("lost", Integer, nullable=False, default=0, server_default="0"),
    Column("flaky", Boolean, nullable=False, default=False, server_default=false()),
    Column("took_s", Float),
    Column("output", Text, nullable=False, default=""),
    Column("digest", String(64)),
    Column("tree", String(40)),
    Column("same_as", String(40)),
    Column("unbarred", Boolean, nullable=False, default=False, server_default=false()),
    Column("lease_owner", String(200)),
    Column("lease_until", Float),
    Column("due_at", Float),
    Column("pull", Integer),
    Column("merged_into", String(40)),
    Column("mends", Text, nullable=False, default="", server_default=""),
    UniqueConstraint("app", "sha"),
    Index(None, "app", "merged_into"),
    Index(None, "app", "position"),
    Index(None, "app", "state", "due_at"),
)

checks = Table(
    "checks",
    metadata,
    Column("id", Id, primary_key=True),
    Column("app", String(100), nullable=False),
    Column("sha", String(40), nullable=False),
    Column("name", String(200), nullable=False),
    Column("state", String(20), nullable=False),
    Column("url", Text, nullable=False),
    Column("source", String(30), nullable=False),
    Column("details", Text, nullable=False),
    Column("stamp", String(60), nullable=False, default="", server_default=""),
    Column("reported_at", Utc, nullable=False),
    Column("began_at", Utc),
    Column("took_s", Float),
    Column("thing", String(300), nullable=False, default="", server_default=""),
    Column("run", BigInteger, nullable=False, default=0, server_default="0"),
    Column("attempt", BigInteger, nullable=False, default=0, server_default="0"),
    Column("since", Float),
    Column("until", Float),
    UniqueConstraint("app", "sha", "name", "thing", "run"),
)

releases = Table(
    "releases",
    metadata,
    Column("app", String(100), primary_key=True),
    Column("commit", String(40), primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("archive", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("built_at", Utc, nullable=False),
)

rollouts = Table(
    "rollouts",
    metadata,
    Column("id", Id, primary_key=True),
    Column("app", String(100), nullable=False),
    Column("commit", String(40), nullable=False),
    Column("commits", JSON, nullable=False),
    Column("previous", String(40)),
    Column("digest", String(64), nullable=False),
    Column("state", String(20), nullable=False),
    Column("halted_stage", String(20)),
    Column("reason", Text),
    Column("requested_by", Text, nullable=False),
    Column("version", Integer, nullable=False, default=1),
    Column("policy", JSON, nullable=False),
    Column("max_failed", Integer, nullable=False),
    Column("mode", String(10), nullable=False),
    Column("concurrency", Integer, nullable=False),
    Column("worst_case", Integer, nullable=False),
    Column("window", Integer, nullable=False, default=1),
    Column("total", Integer, nullable=False),
    Column("done", Integer, nullable=False, default=0),
    Column("failed", Integer, nullable=False, default=0),
    Column("unreadable", Integer, nullable=False, default=0),
    Column("unknown", Integer, nullable=False, default=0),
    Column("in_flight", Integer, nullable=False, default=0),
    Column("counting", Boolean, nullable=False, default=False),
    Column("confirmed", JSON, nullable=False),
    Column("canary_status", String(20)),
    Column("canary_reason", Text),
    Column("ready_at", Float),
    Column("passed_t", Float),
    Column("accepted_at", Float),
    Column("keep", Boolean, nullable=False, default=False),
    Column("rollback_to", String(40)),
    Column("stop_epoch", BigInteger),
    Column("stop_started", Float),
    Column("unconfirmed", JSON, nullable=False),
    Column("due_at", Float),
    Column("watch_due_at", Float),
    Column("started_at", Utc, nullable=False),
    Column("ended_at", Utc),
    Column("began_s", Float),  # store clock, later by what it stood halted; null as above
    Column("took_s", Float),  # halts left out: of a done one, or until it halted
    Column("acknowledged_at", Utc),
)


rollout_hosts = Table(
    "rollout_hosts",
    metadata,
    Column("id", Id, primary_key=True),
    Column("rollout", Id, ForeignKey("rollouts.id"), nullable=False),
    Column("app", String(100), nullable=False),
    Column("name", String(255), nullable=False),
    Column("address", String(255), nullable=False),
    Column("port", Integer, nullable=False),
    Column("user", String(100), nullable=False),
    Column("variables", JSON, nullable=False),
    Column("path", Text, nullable=False),
    Column("role", String(10), nullable=False),
    Column("position", Integer, nullable=False),
    Column("state", String(20), nullable=False),
    Column("version", Integer, nullable=False, default=1),
    Column("attempt", Integer, nullable=False, default=1),
    Column("touched", Boolean, nullable=False, default=False),
    Column("touched_at", Float),
    Column("switched_at", Float),
    Column("token", Boolean, nullable=False, default=False),
    Column("unreadable", Boolean, nullable=False, default=False),
    Column("accepted", Boolean, nullable=False, default=False),
    Column("epoch", BigInteger),
    Column("operation", BigInteger),
    Column("sealed", BigInteger),
    Column("release", String(40)),
    Column("previous", String(40)),
    Column("owes", Boolean, nullable=False, default=False, server_default=false()),
    Column("owed", String(40)),
    Column("error", Text),
    Column("cause", String(50)),
    Column("took_s", Float),
    Column("lease_owner", String(200)),
    Column("lease_until", Float),
    Column("due_at", Float),
    Column("lost_at", Float),
    Column("failures", Integer, nullable=False, default=0),
    Column("tries", Integer, nullable=False, default=0, server_default="0"),
    Column("busy_since", Float),
    Column("cursor", Text),
    UniqueConstraint("rollout", "name"),
    Index("ix_rollout_hosts_rollout_state_position", "rollout", "state", "position"),
    Index("ix_rollout_hosts_state", "state"),
    Index(
        "ix_rollout_hosts_app_name_rollout", "app", "name", "rollout"
    ),  # what else was done on a host, and when
)

fleet_hosts = Table(
    "fleet_hosts",
    metadata,
    Column("app", String(100), primary_key=True),
    Column("name", String(255), primary_key=True),
    Column("address", String(255), nullable=False),
    Column("port", Integer),
    Column("user", String(100)),
    Column("variables", JSON),
    Column("release", String(40)),
    Column("found", String(40)),
    Column("verified_at", Utc),
    Column("excluded", Text),
    Column("left_at", Utc),
    Column("operation", BigInteger, nullable=False, default=0, server_default="0"),
    Column("owes", Boolean, nullable=False, default=False, server_default=false()),
    Column("owed", String(40)),
)

samples = Table(
    "samples",
    metadata,
    Column("id", Id, primary_key=True),
    Column("rollout", Id, ForeignKey("rollouts.id"), nullable=False, index=True),
    Column("t", Float, nullable=False),
    Column("dt", Float, nullable=False),
    Column("host", String(255), nullable=False),
    Column("role", String(10), nullable=False),
    Column("observed", Boolean, nullable=False),
    Column("counts", JSON, nullable=False),
    Column("source", String(20), nullable=False),
    Column("flags", JSON, nullable=False),
)

outputs = Table(
    "outputs",
    metadata,
    Column("id", Id, primary_key=True),
    Column("rollout", Id, ForeignKey("rollouts.id"), nullable=False),
    Column("host", String(255), nullable=False),
    Column("at", Utc, nullable=False),
    Column("step", String(20), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("text", Text, nullable=False),
    Index("ix_outputs_rollout_host", "rollout", "host"),
)

events = Table(
    "events",
    metadata,
    Column("id", Id, primary_key=True),
    Column("at", Utc, nullable=False),
    Column("app", String(100), nullable=False),
    Column("rollout", Id, index=True),
    Column("subject", String(300), nullable=False),
    Column("what", String(50), nullable=False),
    Column("before", String(20)),
    Column("after", String(20)),
    Column("who", Text, nullable=False),
    Column("why", Text),
)

notices = Table(
    "notices",
    metadata,
    Column("id", Id, primary_key=True),
    Column("app", String(100), nullable=False),
    Column("rollout", Id),
    Column("title", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("due_at", Float),  # null: delivered or given up
    Column("owed", JSON),  # the numbers of the addresses that have not taken it, once others have
    Column("created_at", Utc, nullable=False),
    Column("sent_at", Utc),
)
