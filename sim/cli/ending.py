"""How a command ends that goes on until somebody ends it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from contextlib import suppress


def run_until_ended(work: Coroutine[object, object, None]) -> None:
    """Run it to its end, or until Ctrl-C or SIGTERM, which are no errors here; raises what it raises.

    What a shell starts in the background does not hear Ctrl-C, so SIGTERM is the one that always ends it.
    """

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        await work

    with suppress(KeyboardInterrupt, asyncio.CancelledError):
        asyncio.run(main())
