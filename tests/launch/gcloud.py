#!/usr/bin/env python3
"""Stands for gcloud: `compute tpus tpu-vm scp|ssh ... --worker=all` for two hosts, folders w0 and w1 of FAKE_HOSTS."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

hosts = [Path(os.environ["FAKE_HOSTS"], name) for name in ("w0", "w1")]
*where, verb = sys.argv[1:5]
flags = dict(argument.split("=", 1) for argument in sys.argv[5:] if argument.startswith("--"))
plain = [argument for argument in sys.argv[5:] if not argument.startswith("--")]
assert where == ["compute", "tpus", "tpu-vm"] and flags["--worker"] == "all" and flags["--zone"] == "us-east5-a"
with open(Path(os.environ["FAKE_HOSTS"], "calls"), "a") as calls:
    calls.write(f"{verb}\n")
if verb == "scp":
    source, target = plain
    name, _, target = target.partition(":")
    assert name == "slice"
    for host in hosts:
        host.mkdir(exist_ok=True)
        shutil.copy(source, host / target)
    sys.exit()
assert verb == "ssh" and plain == ["slice"]
hosts = [
    subprocess.Popen(
        # as sshd does: a session of its own, a login shell in the home directory
        ["bash", "-c", f"hostname() {{ echo {host.name}; }}\n{flags['--command']}"],
        cwd=host,
        env=os.environ | {"HOME": str(host), "SFACE_PROCESS_ID": str(i)},
        start_new_session=True,
    )
    for i, host in enumerate(hosts)
]
sys.exit(max(host.wait() for host in hosts))
