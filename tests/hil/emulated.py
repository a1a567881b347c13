"""Emulators as processes of their own, and pytest with the conformance suite as another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path

ROOT = Path(__file__).parents[2]
INSTALLED = any(point.value == "hw.conformance.plugin" for point in entry_points(group="pytest11"))
"""Whether this environment was installed since the plugin has an entry point; else pytest is told of it."""


def environment() -> dict[str, str]:
    """Of a process that is not the one that runs these tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))}
    return kept | {"PYTHONPATH": str(ROOT)}


@contextmanager
def kept(reader: str) -> Iterator[None]:
    """Nobody else's pty gets the path of this one, whoever ends: its reader may be looked for under it once more.

    The system gives a number again once both ends of its pty are closed. ``reader``: its URL, or a device's path.
    """
    path = reader.partition("?")[0].rpartition("://")[2]
    if not path.startswith("/"):  # behind a socket
        yield
        return
    device = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        yield
    finally:
        os.close(device)


@contextmanager
def running(command: str, *arguments: str) -> Iterator[str]:
    """``till reader emulate`` or ``replay``; the URL of the reader that it says."""
    program = f"from sim.cli.{command} import {command}; {command}()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments, "--json"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(),
        text=True,
    )
    try:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert ready["event"] == "ready"
        with kept(ready["reader"]):
            yield ready["reader"]
    finally:
        process.kill()
        process.communicate()


def suite_command(*arguments: str) -> list[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    return command if INSTALLED else [*command, "-p", "hw.conformance.plugin"]


def run_suite(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """pytest in a folder of somebody else's, with these arguments."""
    if not (folder / "pytest.ini").exists():
        (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    return subprocess.run(
        suite_command(*arguments),
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
