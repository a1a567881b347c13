"""Frames of ViVOpay readers, written out from what their maker and others print; none is built by our definitions.

P: published, by the Kiosk V User Manual, the NEO 2 Interface Developer's Guide or hakonschia/web-hid-api.
D: derived, the data published and the frame around it computed.
"""

from __future__ import annotations

from hw.vivopay_frames import BurstEvent, Frame, Message

HEADER = "56 69 56 4F 74 65 63 68 32 00 "


def frame(text: str) -> bytes:
    """A frame without its header, completed."""
    return bytes.fromhex(HEADER + text)


COMMANDS: dict[str, tuple[bytes, Message]] = {
    # name (P or D)      frame                              command, sub-command, data
    "ping P": (frame("18 01 00 00 B3 CD"), Message(0x18, 0x01)),
    "get configuration P": (frame("03 02 00 00 5B 91"), Message(0x03, 0x02)),
    "module information P": (frame("09 20 00 00 56 11"), Message(0x09, 0x20)),
    "contact configuration 3C P": (frame("60 16 00 01 03 92 ED"), Message(0x60, 0x16, b"\3")),
    "query screen 1 P": (
        frame("61 13 00 08 53 63 72 65 65 6E 31 00 58 F8"),
        Message(0x61, 0x13, b"Screen1\0"),
    ),
    "query screen 4 P": (
        frame("61 13 00 08 53 63 72 65 65 6E 34 00 AD 07"),
        Message(0x61, 0x13, b"Screen4\0"),
    ),
    "system screen P": (frame("61 17 00 00 72 8D"), Message(0x61, 0x17)),
    "light sensor P": (frame("83 50 00 00 CD 7C"), Message(0x83, 0x50)),
    "activate P": (
        frame("02 40 00 16 9F 02 01 00 9F 03 01 00 FF EE 08 0A DF EF 1A 01 0A DF ED 28 01 03 FD 1A"),
        Message(0x02, 0x40, bytes.fromhex("9F0201009F030100FFEE080ADFEF1A010ADFED280103")),
    ),
    "activate for 10 dollars D": (
        frame("02 40 00 12 0A 9F 02 06 00 00 00 00 10 00 9C 01 00 5F 2A 02 08 40 0C 95"),
        Message(0x02, 0x40, bytes.fromhex("0A9F02060000000010009C01005F2A020840")),
    ),
    "cancel D": (frame("05 01 00 00 92 EF"), Message(0x05, 0x01)),
    "firmware D": (frame("29 00 00 00 DE A0"), Message(0x29, 0x00)),
    "poll on demand D": (frame("01 01 00 01 01 D7 34"), Message(0x01, 0x01, b"\1")),
    "get result D": (frame("03 40 00 00 96 E2"), Message(0x03, 0x40)),
}

ANSWERS: dict[str, tuple[bytes, Message]] = {
    # name (P or D)      frame                              command, status, data
    "ping P": (frame("18 00 00 00 FA 83"), Message(0x18, 0x00)),
    "contact configuration 3C P": (frame("60 00 00 00 3D 35"), Message(0x60, 0x00)),
    "query screen 1 P": (frame("61 00 00 01 01 5B BF"), Message(0x61, 0x00, b"\1")),
    "query screen 4 P": (frame("61 00 00 01 00 4B 9E"), Message(0x61, 0x00, b"\0")),
    "system screen P": (frame("61 00 00 00 4B 81"), Message(0x61, 0x00)),
    "light sensor P": (frame("83 00 00 02 E1 01 0D 25"), Message(0x83, 0x00, b"\xe1\1")),
    "pass-through P": (frame("2C 00 00 00 1C 9B"), Message(0x2C, 0x00)),
    "activate, timeout D": (frame("02 08 00 00 20 2E"), Message(0x02, 0x08)),
    "cancel D": (frame("05 00 00 00 D8 A2"), Message(0x05, 0x00)),
    "contact, more follows D": (frame("60 63 00 00 FF 0E"), Message(0x60, 0x63)),
    "poll on demand P": (frame("01 00 00 00 12 53"), Message(0x01, 0x00)),
}

EVENTS: dict[str, tuple[bytes, BurstEvent]] = {
    "light P": (bytes.fromhex("45 00 55 00 04 01 11 00 00 28 B6"), BurstEvent(bytes.fromhex("01110000"))),
    "message P": (bytes.fromhex("45 00 55 00 04 03 03 00 00 E8 DD"), BurstEvent(bytes.fromhex("03030000"))),
    "three lights P": (
        bytes.fromhex("45 00 55 00 0C 01 30 00 00 01 20 00 00 01 10 00 00 53 78"),
        BurstEvent(bytes.fromhex("013000000120000001100000")),
    ),
}

BURST_CARD = bytes.fromhex(
    """01 00 0A 25 42 36 32 37 39 32 35 37 37 34 39 31 33 32 33 34 33 5E 54 45 53 54 20 43 41 52 44 2F
       56 49 56 4F 54 45 43 48 5E 31 30 31 32 38 31 33 30 30 37 32 31 30 34 33 35 30 30 30 30 3F 3B 36
       32 37 39 32 35 37 37 34 39 31 33 32 33 34 33 3D 31 30 31 32 38 31 33 30 30 37 32 31 30 34 33 35
       30 30 30 30 3F B5 DC"""
)
"""P: a whole burst mode payload, 103 bytes, of the maker's own test card."""

ALL: dict[str, tuple[bytes, Frame]] = {
    **{f"command: {name}": pair for name, pair in COMMANDS.items()},
    **{f"answer: {name}": pair for name, pair in ANSWERS.items()},
    **{f"event: {name}": pair for name, pair in EVENTS.items()},
}
