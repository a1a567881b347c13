"""What ViVOpay readers can be told (NEO 2 Interface Developer's Guide, section 8)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from hw.errors import NotSupported
from hw.reader import Sale
from hw.vivopay_channel import ANSWER, Channel, check
from hw.vivopay_frames import Message
from hw.vivopay_result import Result, activation, contact
from hw.vivopay_tlv import BURST, Item, encode, parse

AUTO_POLL: Final = 0
ON_DEMAND: Final = 1
CONTACTLESS: Final = 0x00
CONTACT: Final = 0x20
"""Interfaces of pass-through commands."""
ALL_LIGHTS: Final = 0xFF
NO_MESSAGE: Final = 0xFF
CARD: Final = 20.0
"""Seconds for a step in which the reader talks to a card, or a person is in between."""
LONGEST_TEXT: Final = 100
"""Characters of a version or a module's name; readers say some twenty."""
AUTHORIZATION_CODE: Final = 0xE300
PURCHASE: Final = 0x00


def sale_objects(sale: Sale | None, moment: datetime | None = None) -> bytes:
    """What an activation tells of a sale: 9F02, 9C, 5F2A, and 5F36 where it is not the reader's own 2.

    ``moment``, in local time, becomes 9A and 9F21, which readers without a clock need; newer ones refuse both.
    Raises NotSupported for an amount that does not go into twelve digits.
    """
    items = []
    if sale is not None:
        if not 0 <= sale.minor < 10**12:
            raise NotSupported("the reader takes amounts of up to twelve digits")
        items = [
            Item(0x9F02, bytes.fromhex(f"{sale.minor:012d}")),
            Item(0x9C, bytes((PURCHASE,))),
            Item(0x5F2A, bytes.fromhex(f"{sale.currency:04d}")),
        ]
        if sale.exponent != 2:
            items.append(Item(0x5F36, bytes((sale.exponent,))))
    return encode((*items, *_dated(moment)))


def _dated(moment: datetime | None) -> tuple[Item, ...]:
    if moment is None:
        return ()
    date, time = moment.strftime("%y%m%d %H%M%S").split()
    return Item(0x9A, bytes.fromhex(date)), Item(0x9F21, bytes.fromhex(time))


class Commands:
    """Each raises NoAnswer and LineGone, and where the status is not OK as `hw.vivopay_channel.check`."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel

    async def _simple(self, command: int, code: int, data: bytes = b"", *, what: str) -> bytes:
        return check(await self.channel.ask(command, code, data, what=what), what).data

    async def ping(self) -> None:
        """Ask whether anyone is there."""
        await self._simple(0x18, 0x01, what="ping")

    async def firmware(self) -> str:
        """The version of its firmware, as it calls it."""
        return _text(await self._simple(0x29, 0x00, what="get firmware version"))

    async def module(self) -> str:
        """What it says of its hardware and serial number."""
        return _text(await self._simple(0x09, 0x20, what="get module information"))

    async def poll(self, mode: int) -> None:
        """`ON_DEMAND`: look for cards when told to; `AUTO_POLL`: always."""
        await self._simple(0x01, 0x01, bytes((mode,)), what="set poll mode")

    async def configuration(self) -> tuple[Item, ...]:
        """All its settings."""
        return parse(await self._simple(0x03, 0x02, what="get configuration"))

    async def configure(self, items: Iterable[Item]) -> None:
        """Change these settings; they stay."""
        await self._simple(0x04, 0x00, encode(items), what="set configuration")

    async def burst(self, on: bool) -> None:
        """Burst mode: each card is told at once and unasked. Readers that encrypt refuse it."""
        await self.configure((Item(BURST, bytes((on,))),))

    async def set_terminal_data(self, items: Iterable[Item]) -> None:
        """Contact settings of the terminal: how many there are, low byte first, and the objects."""
        every = tuple(items)
        await self._simple(0x60, 0x06, len(every).to_bytes(2, "little") + encode(every), what="set terminal data")

    async def cancel(self) -> None:
        """Call off the transaction under way."""
        await self._simple(0x05, 0x01, what="cancel transaction")

    async def stop(self) -> None:
        """End the transaction under way, as it stands."""
        await self._simple(0x05, 0x02, what="stop transaction")

    async def result(self) -> Result:
        """What became of the last card, in `AUTO_POLL`."""
        return activation(await self.channel.ask(0x03, 0x40, what="get transaction result"))

    async def interface(
        self, message: int = NO_MESSAGE, *, beeps: int = 0, light: int = ALL_LIGHTS, on: bool = False
    ) -> None:
        """Show one of the reader's messages by its number, beep, and set a light (0 to 3, or all)."""
        await self._simple(0x01, 0x02, bytes((message, beeps, light, on)), what="control user interface")

    async def beep(self, times: int = 1) -> None:
        """One to four short beeps."""
        await self._simple(0x0B, 0x01, bytes((times,)), what="beep")

    async def start_contact(self, seconds: int, objects: bytes = b"", *, fallback: bool = False) -> Result:
        """Contact: wait so long for a card, select its application and read it. ``fallback``: a swipe will do.

        How the two bytes of a time are ordered is our reading: high byte first, as everywhere in these frames.
        """
        waits = seconds.to_bytes(2, "big")
        return await self._contact(0x10, bytes((fallback,)) + waits + waits + objects, seconds + CARD)

    async def authenticate(self, data: bytes) -> Result:
        """Contact: go on to the first cryptogram. ``data`` as the reader's guide lays it out."""
        return await self._contact(0x11, data, CARD)

    async def apply_host_response(self, data: bytes) -> Result:
        """Contact: finish with what the host said, where the result goes online. ``data`` as for `authenticate`."""
        return await self._contact(0x12, data, CARD)

    async def _contact(self, code: int, data: bytes, patience: float) -> Result:
        what = "contact transaction"
        said = await self.channel.ask(0x60, code, data, what=what, patience=patience, tries=1, timed=False)
        return contact(said)

    async def update_balance(self, approved: bool, code: bytes = b"", moment: datetime | None = None) -> Message:
        """Contactless: tell the card what the host decided, with its authorization code (8 bytes, or none)."""
        items = (Item(AUTHORIZATION_CODE, code),) if code else ()
        data = bytes((not approved,)) + encode((*items, *_dated(moment)))
        return await self.channel.ask(0x03, 0x03, data, what="update balance", patience=CARD, tries=1)

    async def pass_through(self, on: bool) -> None:
        """Whether cards are spoken to by the host, command by command; off turns the field off too."""
        await self._simple(0x2C, 0x01, bytes((on,)), what="pass-through mode")

    async def poll_card(self, tenths: int) -> Message:
        """Look for a contactless card for so long: its kind, and its number in the field."""
        data = bytes((tenths // 10, tenths % 10 * 10))
        return await self.channel.ask(
            0x2C, 0x02, data, what="poll for a card", patience=tenths / 10 + ANSWER, tries=1, timed=False
        )

    async def answer_to_reset(self) -> Message:
        """Power the contact card, and give its answer to reset."""
        return await self.channel.ask(0x2C, 0x12, bytes((CONTACT,)), what="get answer to reset", patience=CARD)

    async def exchange(self, interface: int, command: bytes) -> Message:
        """One command APDU to a card, and its answer."""
        data = bytes((interface,)) + command
        return await self.channel.ask(0x2C, 0x13, data, what="exchange APDU", patience=CARD, tries=1)

    async def contact_off(self) -> None:
        """Contact: power off."""
        await self._simple(0x2C, 0x18, what="contact power off")


def _text(data: bytes) -> str:
    """Printable ASCII alone, and not without an end: it goes to screens and reports."""
    shown = data.partition(b"\0")[0] if data[:1] != b"\0" else data
    return "".join(chr(byte) for byte in shown if 0x20 <= byte < 0x7F).strip()[:LONGEST_TEXT]
