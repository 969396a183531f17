"""A PostgreSQL cluster of our own on a free port, gone at the end. Each test gets a database of its own."""

import itertools
import os
import shutil
import socket
import subprocess
import tempfile
from functools import cached_property
from pathlib import Path

import psycopg
from sqlalchemy import make_url

from rollout.store.store import Store

_NUMBER = itertools.count(1)


def _program(name):
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(places[-1]) if places else shutil.which(name)


class Postgres:
    """Fast and unsafe (fsync off): nobody pulls the plug here. `safe` for the bench, which measures what an fsync costs.

    Nor does anybody clean up: a minute's round of autovacuum is a process for each database, of which tests leave hundreds.
    """

    def __init__(self, also=None, *, safe=False):
        """`also` is a further address to listen at; whoever comes from its network is let in."""
        self._also = also
        self._safe = "on" if safe else "off"
        self.folder = Path(tempfile.mkdtemp(prefix="rollout-pg-"))
        self._process = None
        self.port = 0

    def start(self):
        data = self.folder / "data"
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres")
        self._run(
            [
                _program("initdb"),
                "--no-sync",
                "-A",
                "trust",
                "-U",
                "rollout",
                "-E",
                "UTF8",
                "--locale=C",
                "-D",
                str(data),
            ]
        )
        if self._also:
            with (data / "pg_hba.conf").open("a") as rules:
                rules.write(f"host all rollout {self._also}/16 trust\n")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.resume()
        return self

    def resume(self):
        """Start (again) on the same port."""
        addresses = f"127.0.0.1,{self._also}" if self._also else "127.0.0.1"
        options = (
            f"-p {self.port} -h {addresses} -k {self.folder} -c max_connections=200"
            f" -c fsync={self._safe} -c autovacuum={self._safe}"
        )
        self._run(
            [
                _program("pg_ctl"),
                "-D",
                str(self.folder / "data"),
                "-w",
                "-o",
                options,
                "-l",
                str(self.folder / "log"),
                "start",
            ]
        )

    def stop(self, mode="immediate"):
        self._run(
            [_program("pg_ctl"), "-D", str(self.folder / "data"), "-w", "-m", mode, "stop"], check=False
        )

    def remove(self):
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def pid(self):
        """The process that all others of it descend from."""
        return int((self.folder / "data" / "postmaster.pid").read_text().split()[0])

    def database(self, options=""):
        """The address of a new, empty database, made with these options of CREATE DATABASE."""
        name = f"rollout_{os.getpid()}_{next(_NUMBER)}"
        with psycopg.connect(self._address("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} {options}")
        return self._address(name).replace("://", "+psycopg://")

    def prepared(self):
        """The address of a new database that has the tables, and no row of anybody's: a copy of what the migrations made."""
        return self.database(f"TEMPLATE {self._tables}")

    @cached_property
    def _tables(self):
        address = self.database()
        store = Store(address)
        store.prepare()
        store.close()  # nobody may be in it when it is copied
        return make_url(address).database

    def _address(self, name):
        return f"postgresql://rollout@127.0.0.1:{self.port}/{name}"

    def _run(self, words, *, check=True):
        if os.geteuid() == 0:
            words = ["runuser", "-u", "postgres", "--", *words]
        subprocess.run(
            words,
            check=check,
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
        )
