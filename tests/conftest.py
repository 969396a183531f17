"""What every test may use, and the rule for missing services: they skip here and fail with CI=true."""

import os
import shutil
import sys
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support import faketime, stores

# Each of the processes that tests start would compile the whole product anew; and each run of pytest all tests.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# How long anything takes says nothing on a machine that others use too.
PATIENT = {"deadline": None, "print_blob": True, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("rollout", **PATIENT, max_examples=50)
settings.register_profile("faults", **PATIENT, max_examples=200)
ALL_FAULTS = os.environ.get("FAULTS") == "all"  # `make faults`; otherwise a small fixed part of each
settings.load_profile("faults" if ALL_FAULTS else "rollout")

_MORE_PLACES = "/usr/sbin:/usr/local/sbin:/sbin"


def _missing(name: str) -> bool:
    if name == "root":
        return os.geteuid() != 0
    if name == "postgresql":
        return not any(Path("/usr/lib/postgresql").glob("*/bin/initdb")) and shutil.which("initdb") is None
    if name == "libfaketime":
        return faketime.library() is None
    if name == "docker":
        return shutil.which("docker") is None or os.system("docker info >/dev/null 2>&1") != 0
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_MORE_PLACES}") is None


def pytest_collection_modifyitems(config, items):
    """What is marked `faults` takes long and runs in `make faults` alone; of what is the same on several, so do all but one."""
    if ALL_FAULTS:
        for item in items:
            item.add_marker(
                pytest.mark.timeout(3600), append=False
            )  # beyond all deadlines, also on a busy machine
    else:
        left = {item for item in items if item.get_closest_marker("faults")} | _others(items)
        config.hook.pytest_deselected(items=[item for item in items if item in left])
        items[:] = [item for item in items if item not in left]
    _spread(items)


def _others(items):
    """Where a test runs on each of several shells or awks: all but one, which the test's name picks, so that each has its share."""
    same = {}
    for item in items:
        if mark := item.get_closest_marker("one_of"):
            name, _, values = item.nodeid.partition("[")
            same.setdefault(f"{name}[{values.replace(mark.args[0], '', 1)}", []).append(item)
    picked = {each[zlib.crc32(name.encode()) % len(each)] for name, each in same.items()}
    return {item for each in same.values() for item in each} - picked


def _spread(items):
    """Whole systems take longest, and wait most of it: evenly among the first quarter, which all workers share, and between two files."""
    systems = {}  # tests that share one stay together
    for item in items:
        if item.get_closest_marker("e2e"):
            systems.setdefault("rig" if "rig" in item.fixturenames else item, []).append(item)
    others = [item for item in items if not item.get_closest_marker("e2e")]
    for number, together in reversed(list(enumerate(systems.values()))):
        place = number * len(others) // (4 * len(systems))
        while 0 < place < len(others) and others[place - 1].path == others[place].path:
            place += 1
        others[place:place] = together
    items[:] = others


def pytest_runtest_setup(item):
    """Skip what this machine cannot run, by name; where CI runs, a missing service is a failure."""
    for mark in item.iter_markers("needs"):
        absent = [name for name in mark.args if _missing(name)]
        if not absent:
            continue
        reason = f"missing here: {', '.join(absent)}"
        if os.environ.get("CI") == "true" and absent != ["docker"]:
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture(autouse=True)
def _same_environment():
    """Commands hand their configuration on by the environment; the next test must not get it."""
    before = dict(os.environ)
    yield
    if dict(os.environ) != before:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(autouse=True)
def _closed_stores():
    yield
    stores.close_all()


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL server for this run of the tests."""
    from tests.support.postgres import Postgres

    server = Postgres()
    try:
        yield server.start()
    finally:
        server.remove()


KINDS = ["sqlite", pytest.param("postgresql", marks=pytest.mark.needs("postgresql"))]


def with_tables(request, folder):
    """The address of a database of the kind that `request` asks for, without rows; PostgreSQL's has its tables."""
    if request.param == "sqlite":
        return f"sqlite:///{folder}/rollout.db"
    return request.getfixturevalue("postgres").prepared()


@pytest.fixture(params=KINDS)
def database(request, tmp_path):
    """The address of a database without rows; PostgreSQL's has its tables. Every test that asks for it runs on both."""
    return with_tables(request, tmp_path)


@pytest.fixture(params=KINDS)
def empty_database(request, tmp_path):
    """The address of a database that has nothing at all, for what is about the migrations themselves."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/rollout.db"
    return request.getfixturevalue("postgres").database()
