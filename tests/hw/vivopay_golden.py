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


TERMINAL_DATA = """
    1800 5F360102 9F1A020840 9F350125 9F330360D8C8 9F40056000F05001 9F1E085465726D696E616C 9F15021234
    9F160F303030303030303030303030303030 9F1C083837363534333231 9F4E2231303732312057616C6B65722053742E
    20437970726573732C204341202C5553412E DF260101 DF1008656E667265737A68 DF110101 DF270100 DFEE150101
    DFEE160100 DFEE170107 DFEE180180 DFEE1E08F0DC24F0C20E1400 DFEE1F0180 DFEE1B083030303135313030
    DFEE20013C DFEE21010A DFEE2203323C3C"""
"""The guide's settings for a terminal of configuration 3C: how many there are, low byte first, and each."""

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
    "activate, every interface P": (
        frame("02 40 00 22 1E 9C0100 9F0206000000000100 9F0306000000000000 DFEF370107 DFEF3C03010060 18D1"),
        Message(0x02, 0x40, bytes.fromhex("1E9C01009F02060000000001009F0306000000000000DFEF370107DFEF3C03010060")),
    ),
    "set terminal data P": (
        frame("60 06 00 C8" + TERMINAL_DATA + "AA 88"),
        Message(0x60, 0x06, bytes.fromhex(TERMINAL_DATA)),
    ),
    "list screens P": (frame("61 11 00 00 D2 3F"), Message(0x61, 0x11)),
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
    "set terminal data P": (frame("60 00 00 00 3D 35"), Message(0x60, 0x00)),
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
    "light off P": (bytes.fromhex("45 00 55 00 04 01 10 00 00 1F 86"), BurstEvent(bytes.fromhex("01100000"))),
    "buzzer P": (bytes.fromhex("45 00 55 00 04 02 20 00 00 41 FF"), BurstEvent(bytes.fromhex("02200000"))),
    "second light P": (bytes.fromhex("45 00 55 00 04 01 21 00 00 ED 13"), BurstEvent(bytes.fromhex("01210000"))),
    "third light P": (bytes.fromhex("45 00 55 00 04 01 31 00 00 AE 70"), BurstEvent(bytes.fromhex("01310000"))),
    "thank you P": (bytes.fromhex("45 00 55 00 04 03 04 00 00 6D 4D"), BurstEvent(bytes.fromhex("03040000"))),
    "present card P": (bytes.fromhex("45 00 55 00 04 03 01 00 00 86 BD"), BurstEvent(bytes.fromhex("03010000"))),
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
