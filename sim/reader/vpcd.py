"""A card in a reader behind real PC/SC: the card's end of vpcd, the virtual reader of vsmartcard.

    reader = VpcdReader(35963)
    await reader.insert(chip)        # pcscd now sees a card in "Virtual PCD 00 00"

vpcd (Debian: vsmartcard-vpcd) is a driver that pcscd loads. It listens on a TCP port for each slot, and a card is
whoever connects: each message is two bytes of length and then a command APDU, or one byte that says what the reader
does (power off and on, reset, ask for the answer to reset). Not modelled: voltages, PPS, and what T=1 has below its
APDUs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import reduce
from inspect import isawaitable
from operator import xor
from typing import Final

from hw.atr import parse_atr
from hw.pcsc import GET_UID
from sim.reader.contact import Chip, T0Card, answered, run_t0
from sim.reader.pn532_chip import TappedCard

PORT: Final = 35963
"""Where vpcd listens unless its configuration says otherwise; its second slot is one further."""
HOST: Final = "127.0.0.1"
POWER_OFF, POWER_ON, RESET, ASK_ATR = 0, 1, 2, 4

Answers = Callable[[bytes], Awaitable[bytes]]


class VpcdReader:
    """A slot of vpcd, from the side of whoever holds the card."""

    def __init__(self, port: int = PORT) -> None:
        self._port = port
        self._life: asyncio.Task[None] | None = None
        self._tearing = False
        self._silent = False
        self._speaks = asyncio.Event()
        self.heard: list[bytes] = []
        """Every command that a card has heard."""

    async def insert(self, chip: Chip) -> None:
        """A contact card goes in."""
        await self._present(chip.atr, _contact(chip))

    async def tap(self, card: TappedCard) -> None:
        """A contactless card of type A comes: with the answer to reset and the UID that a reader says for it."""
        await self._present(contactless_atr(card.ats), _contactless(card))

    async def remove(self) -> None:
        """The card is taken away, if there is one."""
        life, self._life = self._life, None
        if life is not None:
            life.cancel()
            await asyncio.wait((life,))

    def tear(self) -> None:
        """The card is pulled while it carries out the next command."""
        self._tearing = True

    def silence(self) -> None:
        """The card takes its time for the next command, until it is told to `speak`."""
        self._silent = True
        self._speaks.clear()

    def speak(self) -> None:
        """End a silence."""
        self._speaks.set()

    async def _present(self, atr: bytes, answers: Answers) -> None:
        await self.remove()
        stream, peer = await asyncio.open_connection(HOST, self._port)
        self._life = asyncio.create_task(self._live(stream, peer, atr, answers))

    async def _live(
        self, stream: asyncio.StreamReader, peer: asyncio.StreamWriter, atr: bytes, answers: Answers
    ) -> None:
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    asked = await _message(stream)
                    if asked == bytes((ASK_ATR,)):
                        said = atr
                    elif len(asked) == 1:
                        continue
                    else:
                        self.heard.append(asked)
                        if self._tearing:
                            self._tearing = False
                            return
                        if self._silent:
                            self._silent = False
                            await self._speaks.wait()
                        said = await answers(asked)
                    peer.write(len(said).to_bytes(2, "big") + said)
                    await peer.drain()
        finally:
            peer.close()


async def _message(stream: asyncio.StreamReader) -> bytes:
    size = int.from_bytes(await stream.readexactly(2), "big")
    return await stream.readexactly(size)


def _contact(chip: Chip) -> Answers:
    """T=1 is the reader's own business; in T=0 it passes on what it is told."""
    half = T0Card(chip) if parse_atr(chip.atr).protocols == (0,) else None

    async def answers(command: bytes) -> bytes:
        if half is None:
            return answered(chip, command)
        said, _ = run_t0(half, command)
        return said if said is not None else b"\x6f\x00"

    return answers


def _contactless(card: TappedCard) -> Answers:
    async def answers(command: bytes) -> bytes:
        if command == GET_UID.encode():
            return card.uid + b"\x90\x00"
        said = card.transmit(command)
        return await said if isawaitable(said) else said

    return answers


def contactless_atr(ats: bytes) -> bytes:
    """What a reader says for a card of type A: its historical bytes in an answer to reset of T=1.

    ``ats`` with its length byte or without (PC/SC part 3, section 3.1.3.2.3.1; ISO/IEC 14443-4, section 5.2).
    """
    ats = ats[1:] if ats and ats[0] == len(ats) else ats
    interface = 1 + (ats[0] >> 4 & 0x07).bit_count() if ats else 0
    historical = ats[interface:][:15]
    body = bytes((0x80 | len(historical), 0x80, 0x01)) + historical
    return b"\x3b" + body + bytes((reduce(xor, body),))
