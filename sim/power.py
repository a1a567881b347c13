"""A terminal's power: where it may go, and what goes with it.

``sim.disk`` and ``sim.network`` pass every moment at which something may end half done through ``Power.due``,
which counts them, by name and altogether. The plan is either ``cut_at`` (the n-th moment from when it was set) or
a fault rule of either of the two. ``cut`` then raises PowerCut: a BaseException, so that nothing swallows it.
Whatever still runs of the terminal is cancelled, and gets PowerCut for all that it asks of disk and network:
cleaning up has no effect that anybody could see.

``running`` marks tasks as the terminal's: the one that it is entered in, and all that are made by these
(``VirtualLoop`` knows them by their context).
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import Counter
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_ROUNDS = 100


class PowerCut(BaseException):
    """The terminal has no power; the message says where it went."""


class Power:
    """One terminal's power supply.

    - ``on``; ``points``: how often each kind of moment was passed; ``cuts``: at which the power went, how often;
    - ``passed``: moments since ``cut_at`` was set, of any kind; ``where``: at which the power went last.
    """

    def __init__(self) -> None:
        self.on = True
        self.points: Counter[str] = Counter()
        self.cuts: Counter[str] = Counter()
        self.passed = 0
        self.where = ""
        self._cut_at: int | None = None
        self._tasks: dict[asyncio.Task[Any], None] = {}

    @property
    def cut_at(self) -> int | None:
        """The moment, counted from 1 from when this is set, at which the power goes; None for none."""
        return self._cut_at

    @cut_at.setter
    def cut_at(self, number: int | None) -> None:
        self._cut_at, self.passed = number, 0

    def require(self) -> None:
        """Raises PowerCut where there is none."""
        if not self.on:
            raise PowerCut("the terminal has no power")

    def due(self, point: str) -> bool:
        """Pass a moment: whether the power is to go here. Raises PowerCut where it has gone already."""
        self.require()
        self.points[point] += 1
        self.passed += 1
        return self.passed == self._cut_at

    def point(self, point: str) -> None:
        """Pass a moment, and go with it where it is due."""
        if self.due(point):
            self.cut(point)

    def cut(self, point: str) -> None:
        """The power goes, here: raises PowerCut, and cancels whatever else runs of the terminal."""
        self.off(point)
        raise PowerCut(point)

    def off(self, point: str = "at will") -> None:
        """The same for whoever is not of the terminal: does not raise."""
        if self.on:
            self.on, self._cut_at, self.where = False, None, point
            self.cuts[point] += 1
            try:
                current = asyncio.current_task()
            except RuntimeError:
                current = None
            for task in tuple(self._tasks):
                if task is not current:
                    task.cancel()

    def back(self) -> None:
        """There is power again."""
        self.on = True

    # -- what runs on it ------------------------------------------------------------------------------------

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """From now on the task is the terminal's."""
        self._tasks[task] = None
        task.add_done_callback(self._gone)

    def _gone(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)
        if not self.on and not task.cancelled():
            task.exception()  # what the dead leave behind is not to be complained of

    async def running(self, main: Coroutine[Any, Any, T]) -> T:
        """Run ``main`` as the terminal's process, and end with nothing of it left.

        Raises what it raises, and PowerCut where the power went meanwhile. A caller that is cancelled cancels it.
        """
        context = contextvars.copy_context()
        context.run(CURRENT.set, self)
        task = asyncio.get_running_loop().create_task(main, context=context)
        try:
            return await task
        finally:
            await self._end(task)
            if not self.on:
                raise PowerCut(self.where)

    async def _end(self, main: asyncio.Task[Any]) -> None:
        """Cancel what is left, as the end of a process does."""
        for _ in range(_ROUNDS):
            left = [task for task in self._tasks if not task.done()]
            if not left:
                return
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=0)
        raise RuntimeError(f"{main.get_coro()} left tasks behind that do not end: {left}")


CURRENT: contextvars.ContextVar[Power | None] = contextvars.ContextVar("power", default=None)
"""On whose power the current task runs."""


def adopting(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
    """A task factory: a task made by a terminal's is the terminal's too."""
    task = asyncio.Task(coro, loop=loop, **options)
    context = options.get("context")
    power = CURRENT.get() if context is None else context.get(CURRENT)
    if power is not None:
        power.adopt(task)
    return task
