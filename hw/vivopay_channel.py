"""Asking a ViVOpay reader, and hearing it out: answers in one step or two, and what it says unasked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hw.errors import FramingError, NoAnswer, NotSupported, ProtocolError
from hw.vivopay_frames import Frame, Message, Order, build_command, command_order, parse
from hw.vivopay_status import ACCEPTED, BAD_CRC, NOT_SUPPORTED, OK, USER_INTERFACE, status_text
from hw.wire import Wire

ANSWER: Final = 1.0
"""Seconds for an answer that needs no card: readers take some tens of milliseconds, flash writes some hundreds."""
TRIES: Final = 3
"""How often a question is asked whose answer may get lost: noise that spoils three in a row is a broken line."""
UNASKED: Final = 64
"""Frames that may come between a question and its answer: a burst of lights and sounds for each step of a card."""


def check(message: Message, what: str) -> Message:
    """The answer, where its status is OK; raises NotSupported, FramingError and ProtocolError with the status."""
    if message.code == OK:
        return message
    said = f"the reader refuses {what}: {status_text(message.code)}"
    if message.code in NOT_SUPPORTED:
        raise NotSupported(said)
    if message.code in (0x01, BAD_CRC):
        raise FramingError(said)
    raise ProtocolError(said)


class Channel:
    """One reader on a wire. ``unasked`` is told every frame that answers nothing: burst mode, requests, stages."""

    def __init__(self, wire: Wire, unasked: Callable[[Frame], None]) -> None:
        self.wire, self.name = wire, wire.name
        self._unasked = unasked
        self._orders: dict[tuple[int, int], Order] = {}

    async def ask(
        self,
        command: int,
        code: int,
        data: bytes = b"",
        *,
        what: str,
        patience: float = ANSWER,
        tries: int = TRIES,
        timed: bool = True,
    ) -> Message:
        """Send a command, and give its last answer with whatever status; raises NoAnswer and LineGone.

        ``tries`` is for commands that may come twice; not ``timed`` are those that wait for a person. What the
        reader takes for a wrong CRC is sent with its bytes the other way round, and from then on so where that
        helps; where it does not, the line had bent the command, and it is sent once more as before.
        """
        usual = self._orders.get((command, code), command_order(command, code))
        for order in (usual, _other(usual), usual):
            for left in range(tries - 1, -1, -1):
                self.wire.discard()
                await self.wire.send(build_command(command, code, data, order), timed=timed)
                try:
                    answer = await self.answer(command, patience, what)
                    break
                except NoAnswer:
                    if not left:
                        raise
                    self.wire.counts.retries += 1
            if answer.code != BAD_CRC:
                self._orders[command, code] = order
                break
        return answer

    async def send(self, command: int, code: int, data: bytes = b"", *, timed: bool = True) -> None:
        """Send a command and do not wait for its answer."""
        await self.wire.send(build_command(command, code, data, self._orders.get((command, code))), timed=timed)

    async def answer(self, command: int, patience: float, what: str) -> Message:
        """The next last answer to that command, within ``patience`` seconds after each step that is told before it.

        Raises NoAnswer, LineGone, and ProtocolError for a reader that says everything but that.
        """
        for _ in range(UNASKED):
            frame = await self.hear(patience, what)
            if (
                isinstance(frame, Message)
                and frame.command == command
                and frame.code
                not in (
                    ACCEPTED,
                    USER_INTERFACE,
                )
            ):
                return frame
            self._unasked(frame)
        raise ProtocolError(f"{self.name}: the reader does not come to an answer to {what}")

    async def hear(self, patience: float | None, what: str) -> Frame:
        """The next frame, whatever it says; raises NoAnswer and LineGone."""
        return parse(await self.wire.receive(patience, what))


def _other(order: Order) -> Order:
    return "big" if order == "little" else "little"
