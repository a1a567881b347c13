"""A process that may be killed: forked from this one, which has everything imported already."""

from __future__ import annotations

import os
import sys
import traceback
from collections import deque
from collections.abc import Callable
from pathlib import Path


class Life:
    """A forked process, what it writes, and a pipe whose end tells it to end."""

    def __init__(self, name: str, work: Callable[[], int], errors: Path) -> None:
        self.name, self._errors = name, errors
        self.lines: deque[str] = deque()
        self._rest = b""
        self.out, out = os.pipe()
        into, self._control = os.pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _become(work, into, out, errors)
        os.close(out)
        os.close(into)

    def read(self) -> bool:
        """Take what it has written; False when there will be no more."""
        data = os.read(self.out, 1 << 16)
        *lines, self._rest = (self._rest + data).split(b"\n")
        self.lines += [line.decode() for line in lines]
        return bool(data)

    def end(self) -> None:
        """Tell it to end."""
        os.close(self._control)
        self._control = -1

    def reap(self) -> int:
        """Its exit code, and in ``lines`` all that it had written."""
        while self.read():
            pass
        os.close(self.out)
        if self._control >= 0:
            os.close(self._control)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def last_words(self) -> str:
        """The end of what it wrote to stderr."""
        return self._errors.read_text()[-2000:]


def _become(work: Callable[[], int], into: int, out: int, errors: Path) -> None:
    """The child: it never returns, and holds nothing of its parent's."""
    code = 70
    try:
        os.dup2(into, 0)
        os.dup2(out, 1)
        os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        code = work()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)
