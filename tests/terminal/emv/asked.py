"""Cards from a script, and what the reading of one comes to."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from hw.apdu import Command, Response
from hw.tlv import Tlv, encode, template
from terminal.emv.select import Asking
from terminal.emv.tags import Tag
from terminal.emv.terminal_data import TerminalData, terminal_data
from terminal.money import Amount

VISA, MAESTRO = bytes.fromhex("A0000000031010"), bytes.fromhex("A0000000043060")
TRACK_2 = bytes.fromhex("4761739001010119D28122011000001230000F")
PSE, PPSE = b"1PAY.SYS.DDF01", b"2PAY.SYS.DDF01"
NOW = datetime(2025, 12, 31, 23, 30, 15, tzinfo=UTC)
TOLD: TerminalData = terminal_data(None, Amount(1250, "EUR"), NOW, b"\x01\x02\x03\x04")


class Card:
    """Answers each command as ``answers`` say, by the beginning of its bytes, and 6A82 to the rest."""

    def __init__(self, **answers: bytes) -> None:
        self.answers = {bytes.fromhex(begin.strip("x")): said for begin, said in answers.items()}
        self.heard: list[bytes] = []

    def transmit(self, command: bytes) -> bytes:
        self.heard.append(command)
        begins = [begin for begin in self.answers if command.startswith(begin)]
        return self.answers[max(begins, key=len)] if begins else b"\x6a\x82"


def run(asking: Asking[Any], transmit: Callable[[bytes], bytes], limit: int = 500) -> Any:
    """What the asking returns; it must come to an end within ``limit`` commands."""
    command: Command = next(asking)
    for _ in range(limit):
        try:
            command = asking.send(Response.decode(transmit(command.encode())))
        except StopIteration as done:
            return done.value
    raise AssertionError(f"{limit} commands, and no end")


def ok(*objects: Tlv) -> bytes:
    """These objects, and success."""
    return encode(objects) + b"\x90\x00"


def entry(aid: bytes, priority: int | None = 1, label: bytes = b"") -> Tlv:
    """A directory's entry."""
    inside = [Tlv(Tag.AID, aid)]
    if label:
        inside.append(Tlv(Tag.LABEL, label))
    if priority is not None:
        inside.append(Tlv(Tag.PRIORITY, bytes((priority,))))
    return template(Tag.DIRECTORY_ENTRY, *inside)


def ppse(*entries: Tlv) -> bytes:
    """The answer to SELECT PPSE."""
    listed = template(Tag.FCI_PROPRIETARY, template(Tag.FCI_DISCRETIONARY, *entries))
    return ok(template(Tag.FCI, Tlv(Tag.DF_NAME, PPSE), listed))


def pse(sfi: int = 1) -> bytes:
    """The answer to SELECT PSE."""
    inside = template(Tag.FCI_PROPRIETARY, Tlv(Tag.DIRECTORY_SFI, bytes((sfi,))))
    return ok(template(Tag.FCI, Tlv(Tag.DF_NAME, PSE), inside))


def fci(aid: bytes, *more: Tlv) -> bytes:
    """The answer to SELECT of an application."""
    return ok(template(Tag.FCI, Tlv(Tag.DF_NAME, aid), template(Tag.FCI_PROPRIETARY, *more)))


def options(locator: str = "", *more: Tlv) -> bytes:
    """The answer to GET PROCESSING OPTIONS, format 2."""
    listed = [Tlv(Tag.FILE_LOCATOR, bytes.fromhex(locator))] if locator else []
    return ok(template(Tag.OPTIONS_2, Tlv(Tag.INTERCHANGE_PROFILE, b"\x18\x00"), *listed, *more))


def record(*objects: Tlv) -> bytes:
    """The answer to READ RECORD."""
    return ok(template(Tag.RECORD, *objects))


def select(name: bytes) -> str:
    """How SELECT of it begins, as a keyword."""
    return "x" + (b"\x00\xa4\x04\x00" + bytes((len(name),)) + name).hex()
