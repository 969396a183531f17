"""ansible-playbook, tuned: forks, pipelining, the free strategy, ControlPersist, no facts, the interpreter named.

Shipping is `copy` and `shell`; activating is `raw`, which needs no Python on the hosts. Its start is in its figures.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from job import JOB, SAID, Clock, in_words

CONFIG = """\
[defaults]
forks = {forks}
strategy = free
gathering = explicit
interpreter_python = /usr/bin/python3
callback_result_format = json
stdout_callback = ansible.builtin.minimal
retry_files_enabled = False
[connection]
pipelining = True
[ssh_connection]
pipelining = True
ssh_args = -F /dev/null -o ControlMaster=auto -o ControlPersist=60s -o UserKnownHostsFile={known_hosts} -o IdentitiesOnly=yes -o KexAlgorithms=curve25519-sha256
control_path_dir = {folder}/cp
"""
SHIP = [
    {"name": "upload", "ansible.builtin.copy": {"src": "{{ input }}", "dest": "{{ root }}/" + SAID}},
    {
        "name": "ship",
        "ansible.builtin.shell": "{{ command }} <" + SAID + " >.answer",
        "args": {"chdir": "{{ root }}"},
    },
]
SWITCH = [{"name": "switch", "ansible.builtin.raw": "cd {{ root }}; ({{ words }}) >.answer"}]
WARM = [{"name": "warm", "ansible.builtin.raw": "true"}]


def main():
    with tempfile.TemporaryDirectory(prefix="ans") as name:
        folder = Path(name)
        (folder / "ansible.cfg").write_text(
            CONFIG.format(forks=JOB["at_once"], known_hosts=JOB["known_hosts"], folder=folder)
        )
        (folder / "inventory.json").write_text(
            json.dumps({"all": {"hosts": {host["address"]: _variables(host) for host in JOB["hosts"]}}})
        )
        for book, tasks in (("work", SHIP if JOB["ship"] else SWITCH), ("warm", WARM)):
            (folder / f"{book}.json").write_text(
                json.dumps([{"hosts": "all", "gather_facts": False, "tasks": tasks}])
            )
        if JOB["warm"]:
            _play(folder, "warm")
        clock = Clock()
        _play(folder, "work")
        clock.tell([(Path(host["root"]) / ".answer").read_text() for host in JOB["hosts"]])


def _variables(host):
    return {
        "ansible_port": JOB["port"],
        "ansible_user": JOB["user"],
        "ansible_ssh_private_key_file": JOB["key"],
        "input": host["input"],
        "root": host["root"],
        "command": host["command"],
        "words": "" if JOB["ship"] else in_words(host),
    }


def _play(folder, book):
    done = subprocess.run(
        [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "inventory.json", f"{book}.json"],
        cwd=folder,
        env=os.environ | {"ANSIBLE_CONFIG": str(folder / "ansible.cfg"), "HOME": str(folder)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"ansible-playbook: {done.stdout[-1500:]} {done.stderr[-1500:]}")


main()
