"""A terminal, opened for one command, with what happens shown as it happens."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from terminal import log
from terminal import settings as settings_file
from terminal.cli.common import Common
from terminal.crypto import vault_file
from terminal.crypto.vault import Secret
from terminal.events import Event, PaymentChanged
from terminal.home import VAULT_FILE
from terminal.settings import Settings
from terminal.terminal import Terminal

R = TypeVar("R")

_log = logging.getLogger(__name__)


def load(home: Path) -> Settings:
    """The settings of a home that is provisioned. Raises KeystoreError where it is not."""
    vault_file.read_facts(home / VAULT_FILE)
    return settings_file.load(home)


def with_terminal(
    common: Common, settings: Settings, secret: Secret, work: Callable[[Terminal], Awaitable[R]]
) -> R:
    """Open the terminal, do the work, show its events, close it. Raises what the work raises.

    Whatever a person is to be asked for is asked for before: the event loop takes a Ctrl-C for its own.
    """
    log.guard_last_resort()
    common.after_a_stop = (
        common.after_a_stop or "A payment that was under way is in the journal: `till journal --open`."
    )
    return asyncio.run(_with_terminal(common, settings, secret, work))


async def _with_terminal(
    common: Common, settings: Settings, secret: Secret, work: Callable[[Terminal], Awaitable[R]]
) -> R:
    async with contextlib.AsyncExitStack() as after, Terminal.open(settings, secret=secret) as till:
        shown = asyncio.create_task(_show(common, till.events()))
        # The events end when the terminal is closed; what was told by then is shown all the same.
        after.push_async_callback(asyncio.wait, [shown])
        return await work(till)


async def _show(common: Common, events: AsyncIterator[Event]) -> None:
    async for event in events:
        if (
            isinstance(event, PaymentChanged)
            and not common.watching
            and (common.payment is None or _is_ours(common.payment, event))
        ):
            common.payment = event
        try:
            common.screen.event(event)
        except Exception:
            # What cannot be drawn must not become the outcome of a payment.
            _log.exception("an event could not be shown")


def _is_ours(first: PaymentChanged, event: PaymentChanged) -> bool:
    return event.payment_id == first.payment_id
