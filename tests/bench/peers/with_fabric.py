"""Fabric as it comes, in threads: `put`, then `run`. It checks no host key."""

from concurrent.futures import ThreadPoolExecutor

import fabric
from job import JOB, SAID, Clock, in_words, with_file


def _connection(host):
    return fabric.Connection(
        host["address"], user=JOB["user"], port=JOB["port"], connect_kwargs={"key_filename": JOB["key"]}
    )


def main():
    warm = {}

    def open_one(host):
        warm[host["address"]] = _connection(host)
        warm[host["address"]].open()

    def one(host):
        connection = warm.get(host["address"]) or _connection(host)
        try:
            if JOB["ship"]:
                connection.put(host["input"], SAID)
                return connection.run(with_file(host), hide=True).stdout
            return connection.run(in_words(host), hide=True).stdout
        finally:
            if host["address"] not in warm:
                connection.close()

    with ThreadPoolExecutor(JOB["at_once"]) as pool:
        if JOB["warm"]:
            list(pool.map(open_one, JOB["hosts"]))
        clock = Clock()
        clock.tell(list(pool.map(one, JOB["hosts"])))
    for connection in warm.values():
        connection.close()


main()
