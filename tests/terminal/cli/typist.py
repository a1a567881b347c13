"""Somebody at the keys: runs ``till`` on a pty of its own, waits for a prompt, types an answer."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

DEADLINE = 60.0
"""Seconds after which somebody gives up."""

# The first terminal that the leader of a session opens becomes its own: then /dev/tty is this pty.
_START = """
import os, sys
os.close(os.open(os.ttyname(0), os.O_RDWR))
from terminal.cli.entry import main
sys.exit(main())
"""


class Typist:
    """One run of ``till``. ``seen`` is everything that stood on the screen."""

    def __init__(self, *words: str, env: dict[str, str] | None = None) -> None:
        self._keys, screen = pty.openpty()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TILL_")}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, *words],
            stdin=screen,
            stdout=screen,
            stderr=screen,
            start_new_session=True,
            cwd=Path(__file__).parents[3],
            env=environment | {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"} | (env or {}),
        )
        os.close(screen)
        self.seen = ""
        self._read_up_to = 0

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Read on until the pattern stands after what was waited for before."""
        until = time.monotonic() + DEADLINE
        while not (found := re.compile(pattern).search(self.seen, self._read_up_to)):
            if not self._read(until):
                raise AssertionError(f"{pattern!r} never came; on the screen:\n{self.seen}")
        self._read_up_to = found.end()
        return found

    def answer(self, prompt: str, text: str) -> None:
        """Wait for the prompt and type the text. getpass turns the echo off before it prompts."""
        self.wait_for(prompt)
        self.press(text + "\n")

    def press(self, keys: str) -> None:
        """Type."""
        os.write(self._keys, keys.encode())

    def leave(self) -> int:
        """Read to the end; the exit code."""
        until = time.monotonic() + DEADLINE
        while self._read(until):
            pass
        os.close(self._keys)
        return self._process.wait(DEADLINE)

    def _read(self, until: float) -> bool:
        ready, _, _ = select.select([self._keys], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            self._process.kill()
            return False
        try:
            data = os.read(self._keys, 65536)
        except OSError:  # the other end is closed
            return False
        self.seen += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", data.decode(errors="replace"))
        return bool(data)
