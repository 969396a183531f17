"""parallel-ssh as its documentation has it: copy the file to all hosts, then run the command on all. It checks no host key."""

from pathlib import Path

from job import JOB, SAID, Clock, in_words, with_file
from pssh.clients import ParallelSSHClient


def _client(hosts):
    return ParallelSSHClient(
        [host["address"] for host in hosts],
        user=JOB["user"],
        port=JOB["port"],
        pkey=JOB["key"],
        pool_size=JOB["at_once"],
        allow_agent=False,
        identity_auth=False,
    )


def _ask(client, words):
    output = client.run_command("%s", host_args=[(one,) for one in words])
    client.join(output)
    return ["\n".join(one.stdout) for one in output]


def main():
    hosts = JOB["hosts"]
    client = _client(hosts)
    if JOB["warm"]:
        _ask(client, ["true"] * len(hosts))
    clock = Clock()
    if JOB["ship"]:
        from gevent import joinall

        files = [{"local_file": str(Path(host["input"])), "remote_file": SAID} for host in hosts]
        joinall(client.copy_file("%(local_file)s", "%(remote_file)s", copy_args=files), raise_error=True)
        clock.tell(_ask(client, [with_file(host) for host in hosts]))
    else:
        clock.tell(_ask(client, [in_words(host) for host in hosts]))


main()
