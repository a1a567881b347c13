"""What a trace says of commands and answers: header and status words, and no byte that its frame does not show."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw import acs_frames, gemcore_frames
from hw.apdu_trace import command_words, piece_words, response_words
from hw.ccid import Kind, Message
from hw.pn532_frames import answer, command
from hw.pn532_trace import language as pn532
from hw.t1 import i_block
from hw.trace import Language
from hw.vivopay_frames import build_answer, build_command
from hw.vivopay_trace import language as vivopay

PPSE = bytes.fromhex("00A404000E325041592E5359532E444446303100")
READ = bytes.fromhex("00B2010C00")
VERIFY = bytes.fromhex("0020008008241234FFFFFFFFFF")
RECORD = bytes.fromhex("700A5A084761739001010119")
OK = b"\x90\x00"
SELECTED = "SELECT 00 A4 04 00, 14 bytes"


@pytest.mark.parametrize(
    ("apdu", "said"),
    [
        ("00A404000E325041592E5359532E444446303100", SELECTED),
        ("00A404000E325041592E5359532E4444463031", SELECTED),
        ("00A4040000000E325041592E5359532E44444630310000", SELECTED),
        ("00B2010C00", "READ RECORD 00 B2 01 0C"),
        ("00B2010C", "READ RECORD 00 B2 01 0C"),
        ("80A8000002830000", "GET PROCESSING OPTIONS 80 A8 00 00, 2 bytes"),
        ("80CA9F3600", "GET DATA 80 CA 9F 36"),
        ("8024000001FF", "PIN CHANGE 80 24 00 00, 1 byte"),
        ("9060000000", "90 60 00 00"),
        ("6004FFFFFFFFFFFF04A1B2C3", "12 bytes"),
        ("00B201", "3 bytes"),
        ("00", "1 byte"),
        ("", "0 bytes"),
    ],
)
def test_a_command(apdu: str, said: str) -> None:
    assert command_words(bytes.fromhex(apdu)) == said


@pytest.mark.parametrize(
    ("apdu", "said"),
    [
        ("9000", "SW 9000"),
        ("6A82", "SW 6A82"),
        ("700A5A0847617390010101199000", "SW 9000, 12 bytes"),
        ("FF6110", "SW 6110, 1 byte"),
        ("700A5A084761739001010119", "12 bytes"),
        ("7000", "2 bytes"),
        ("6000", "2 bytes"),
        ("90", "1 byte"),
        ("", "0 bytes"),
    ],
)
def test_an_answer(apdu: str, said: str) -> None:
    assert response_words(bytes.fromhex(apdu)) == said


def test_pieces() -> None:
    assert command_words(PPSE[:12], more=True) == "SELECT 00 A4 04 00, 7 bytes, more to come"
    assert command_words(PPSE[:5], more=True) == "SELECT 00 A4 04 00, more to come"
    assert command_words(PPSE[:3], more=True) == "3 bytes, more to come"
    assert piece_words(1, more=False) == "1 byte"


Frames = tuple[Callable[[bytes], bytes], Callable[[bytes], bytes], Callable[[], Language], str, str]


def _ccid(envelope: gemcore_frames.GemcoreEnvelope | acs_frames.AcsEnvelope, t1: bool) -> Frames:
    def wrapped(kind: Kind) -> Callable[[bytes], bytes]:
        return lambda apdu: envelope.build(Message(kind, i_block(0, apdu).encode() if t1 else apdu, 0, 7))

    block = "I(0) " if t1 else ""
    return (
        wrapped(Kind.XFR_BLOCK),
        wrapped(Kind.DATA_BLOCK),
        envelope.language,
        f"bytes: {block}",
        f"bytes: {block}",
    )


READERS: dict[str, Frames] = {
    "pn532": (
        lambda apdu: command(0x40, b"\1" + apdu),
        lambda apdu: answer(0x40, b"\0" + apdu),
        pn532,
        "InDataExchange: ",
        "InDataExchange answered: ",
    ),
    "pn532, raw": (
        lambda apdu: command(0x42, b"\2" + apdu),
        lambda apdu: answer(0x42, b"\0\2" + apdu),
        pn532,
        "InCommunicateThru: ",
        "InCommunicateThru answered: ",
    ),
    "gemcore, T=0": _ccid(gemcore_frames.ENVELOPE, t1=False),
    "gemcore, T=1": _ccid(gemcore_frames.ENVELOPE, t1=True),
    "acs, T=0": _ccid(acs_frames.ENVELOPE, t1=False),
    "acs, T=1": _ccid(acs_frames.ENVELOPE, t1=True),
    "vivopay": (
        lambda apdu: build_command(0x2C, 0x13, b"\x20" + apdu),
        lambda apdu: build_answer(0x2C, 0x00, apdu),
        vivopay,
        "exchange APDU: ",
        "pass-through: ",
    ),
}


@pytest.mark.parametrize("name", READERS)
def test_every_reader_s_trace_says_it_alike(name: str) -> None:
    out, back, language, asks, answers = READERS[name]
    line = language()
    said = [line.describe(frame) for frame in (out(PPSE), back(RECORD + OK), out(VERIFY), back(b"\x63\xc2"))]
    assert [words.endswith(end) for words, end in zip(said, ENDS, strict=True)] == [True] * 4, said
    assert asks + ENDS[0] in said[0]
    assert answers + ENDS[1] in said[1]


ENDS = (SELECTED, "SW 9000, 12 bytes", "VERIFY 00 20 00 80, 8 bytes", "SW 63C2")


def test_a_chain_of_blocks_has_a_header_at_its_beginning_and_status_words_at_its_end() -> None:
    envelope = gemcore_frames.ENVELOPE
    line = envelope.language()

    def said(kind: Kind, number: int, inf: bytes, more: bool) -> str:
        frame = envelope.build(Message(kind, i_block(number, inf, more=more).encode(), 0, 7))
        return line.describe(frame).partition("bytes: ")[2]

    assert said(Kind.XFR_BLOCK, 0, VERIFY[:8], True) == "I(0) VERIFY 00 20 00 80, 3 bytes, more to come"
    assert said(Kind.XFR_BLOCK, 1, VERIFY[8:], False) == "I(1) 5 bytes"
    assert said(Kind.DATA_BLOCK, 0, RECORD[:6], True) == "I(0) 6 bytes, more to come"
    assert said(Kind.DATA_BLOCK, 1, RECORD[6:] + OK, False) == "I(1) SW 9000, 6 bytes"
    assert said(Kind.XFR_BLOCK, 0, READ, False) == "I(0) READ RECORD 00 B2 01 0C"


def test_what_goes_on_over_frames_of_a_pn532_is_counted() -> None:
    line = pn532()
    frames = (answer(0x40, b"\x40" + RECORD[:6]), answer(0x40, b"\0" + RECORD[6:] + OK), answer(0x40, b"\0" + OK))
    assert [line.describe(frame).partition("answered: ")[2] for frame in frames] == [
        "6 bytes, more to come",
        "8 bytes",
        "SW 9000",
    ]
    assert line.describe(answer(0x42, b"\0\xa2")) == "InCommunicateThru answered: 1 byte"


def test_an_answer_to_something_else_is_no_card_s() -> None:
    atr = bytes.fromhex("3B6500009C02027000")
    frame = gemcore_frames.ENVELOPE.build(Message(Kind.DATA_BLOCK, atr + OK, 0, 7))
    assert gemcore_frames.ENVELOPE.language().describe(frame) == "data block, slot 0, seq 7, card active, 11 bytes"
    line = vivopay()
    line.describe(build_command(0x2C, 0x02, b"\1\0"))
    assert line.describe(build_answer(0x2C, 0x00, b"\1\4\xa1\x90\0")) == "pass-through: OK (00h), 5 bytes"


@given(
    name=st.sampled_from(list(READERS)),
    turns=st.lists(st.tuples(st.booleans(), st.binary(min_size=1, max_size=40) | st.just(VERIFY)), max_size=6),
)
def test_no_word_says_a_byte_that_the_frame_beside_it_does_not_show(
    name: str, turns: list[tuple[bool, bytes]]
) -> None:
    out, back, language, *_ = READERS[name]
    line = language()
    for asks, apdu in turns:
        frame = (out if asks else back)(apdu)
        shown, words = line.masked(frame).hex().upper(), line.describe(frame)
        for told in re.findall(r"\b[0-9A-F]{2}(?: [0-9A-F]{2}){3}\b|(?<=SW )[0-9A-F]{4}", words):
            assert told.replace(" ", "") in shown
