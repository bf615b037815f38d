"""A Ray of two nodes, each in a network namespace of its own: two machines, as far as Ray can tell. Needs root."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Self

from tests.ray_cluster import environment

_NET = "10.217.91"


class TwoNodes:
    """`with TwoNodes() as nodes:` has a head at `nodes.address`; `join` adds the second node, which may be odd.

    Both share this machine's files, so a server on a Unix socket is there for both.
    """

    def __enter__(self) -> Self:
        self._cleanup = ExitStack()
        self._tag = f"rv{os.getpid() % 100_000}"
        self._bridge = f"{self._tag}b"
        self.address = f"{_NET}.1:6399"
        try:
            _ip("link", "add", self._bridge, "type", "bridge")
            self._cleanup.callback(_ip, "link", "del", self._bridge)
            _ip("link", "set", self._bridge, "up")
            for number in (1, 2):
                self._add_namespace(number)
            self._head = self._start(1, {}, "--head", "--port=6399", "--include-dashboard=false", "--num-cpus=1")
        except BaseException:
            self._cleanup.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def join(self, variables: Mapping[str, str]) -> None:
        """Start the second node, with these variables for its workers."""
        self._start(2, variables, f"--address={self.address}", "--num-cpus=1")

    def command(self, *arguments: str, variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Run a Python program on the head's machine to its end."""
        return subprocess.run(
            ["ip", "netns", "exec", f"{self._tag}n1", sys.executable, "-P", *arguments],
            capture_output=True, text=True, check=False, timeout=300,
            env=environment() | {"RAY_AUTH_MODE": "disabled"} | dict(variables),
        )  # fmt: skip

    def _add_namespace(self, number: int) -> None:
        name, outer, inner = f"{self._tag}n{number}", f"{self._tag}o{number}", f"{self._tag}i{number}"
        _ip("netns", "add", name)
        self._cleanup.callback(_ip, "netns", "del", name)
        _ip("link", "add", outer, "type", "veth", "peer", "name", inner)
        _ip("link", "set", outer, "master", self._bridge, "up")
        _ip("link", "set", inner, "netns", name)
        _ip("-n", name, "addr", "add", f"{_NET}.{number}/24", "dev", inner)
        _ip("-n", name, "link", "set", inner, "up")
        _ip("-n", name, "link", "set", "lo", "up")

    def _start(self, number: int, variables: Mapping[str, str], *options: str) -> subprocess.Popen[bytes]:
        folder = self._cleanup.enter_context(
            tempfile.TemporaryDirectory(prefix="rvr-", dir="/tmp", ignore_cleanup_errors=True)
        )
        more = [f"--temp-dir={folder}"] if "--head" in options else []
        process = subprocess.Popen(
            ["ip", "netns", "exec", f"{self._tag}n{number}", sys.executable, "-P", "-m", "ray.scripts.scripts",
             "start", "--block", f"--node-ip-address={_NET}.{number}", "--object-store-memory=80000000",
             *options, *more],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
            env=environment() | {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"} | dict(variables),
        )  # fmt: skip
        self._cleanup.callback(_end, process)
        said = b""
        assert process.stdout is not None
        while b"Ray runtime started" not in said:
            line = process.stdout.readline()
            assert line, said.decode()
            said += line
        return process


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()  # it ends the processes that it started
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
