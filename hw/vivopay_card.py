"""A card that the host speaks to through a ViVOpay reader (pass-through mode, NEO 2 Developer's Guide 8.15)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from hw.card import ChipCard, EntryMode
from hw.errors import CardError, CardGone, LineGone, NotSupported, ProtocolError, ReaderError
from hw.vivopay_commands import CONTACT, Commands
from hw.vivopay_status import BAD_CRC, FAILED, NOT_GIVEN, OK, TIMEOUT, status_text

_ABSENT: Final = frozenset((TIMEOUT, FAILED))
"""Statuses of a card that does not answer."""


class PassedThrough(ChipCard):
    """A card at one of the interfaces. ``gone`` is called when it was taken away, ``mourn`` when the line went."""

    def __init__(
        self,
        commands: Commands,
        interface: int,
        answer: bytes,
        uid: bytes,
        *,
        gone: Callable[[], None],
        mourn: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(EntryMode.CHIP if interface == CONTACT else EntryMode.CONTACTLESS, answer, uid)
        self._commands, self._interface, self._gone, self._mourn = commands, interface, gone, mourn
        self._over = self._unsure = False

    async def _exchange(self, command: bytes) -> bytes:
        name = self._commands.channel.name
        if self._over or self._unsure:
            raise CardGone(f"{name}: the card was let go of")
        try:
            answer = await self._commands.exchange(self._interface, command)
        except LineGone:
            self._over = True
            await self._mourn()
            raise
        except BaseException:  # the answer may still come, and must not be taken for that to the next command
            self._unsure = True
            raise
        if answer.code == OK:
            return answer.data
        if answer.code in _ABSENT:
            self._over = True
            self._gone()
            raise CardGone(f"{name}: the card was taken away")
        if answer.code == BAD_CRC:
            raise ProtocolError(f"{name}: the reader understands no command to a card")
        if answer.code == NOT_GIVEN:
            raise NotSupported(
                f"{name}: the reader keeps the card's number to itself",
                advice="Leave out mode=passthrough, and say encrypts=yes: it hands over what it has encrypted.",
            )
        raise CardError(f"{name}: the card was not asked: {status_text(answer.code)}", advice="Use another card.")

    async def release(self) -> None:
        """See ChipCard: power off, or field off. What goes wrong with that no longer matters."""
        if self._over:
            return
        self._over = True
        try:
            if self._interface == CONTACT:
                await self._commands.contact_off()
            await self._commands.pass_through(False)
        except LineGone:
            await self._mourn()
        except ReaderError:
            return

    def forget(self) -> None:
        """The reader has turned to the next card."""
        self._over = True
