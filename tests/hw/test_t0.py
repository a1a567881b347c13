"""T=0: published exchanges, byte by byte, and the card's half against the terminal's."""

from __future__ import annotations

from collections.abc import Generator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw.apdu import Command
from hw.errors import CardError, NotSupported, ProtocolError
from hw.t0 import MAX_NULLS, characters, to_tpdu
from sim.reader.contact import T0Card, run_t0
from tests.hw.contact import FCI, LONG, SELECT, T0, Chip


def spoken(tpdu: str, *exchange: tuple[str, str]) -> str:
    """Run the terminal's half: each pair is what it has to send, and what the card then says."""
    line = characters(bytes.fromhex(tpdu))
    sending = next(line)
    try:
        for wanted, said in exchange:
            assert (sending or b"").hex() == wanted.replace(" ", "").lower()
            codes = bytes.fromhex(said)
            for place, code in enumerate(codes):
                sending = line.send(code)
                if place < len(codes) - 1:
                    assert not sending
    except StopIteration as done:
        answer: bytes = done.value
        return answer.hex()
    raise AssertionError("it goes on")


def hear(line: Generator[bytes | None, int, bytes], said: str) -> None:
    for code in bytes.fromhex(said):
        line.send(code)


def test_select_with_its_data_on_one_procedure_byte() -> None:
    said = spoken("00A4040005A000000003", ("00 A4 04 00 05", "A4"), ("A0 00 00 00 03", "61 17"))
    assert said == "6117"


def test_get_response_takes_what_was_announced() -> None:
    assert spoken("00C0000017", ("00 C0 00 00 17", "C0" + "AB" * 23 + "9000")) == "ab" * 23 + "9000"


def test_nulls_are_waited_out() -> None:
    assert spoken("00B0000004", ("00 B0 00 00 04", "60 60 B0 11 22 33 44 90 00")) == "112233449000"


def test_status_words_may_come_at_once() -> None:
    assert spoken("00A40400063F0000000000", ("00 A4 04 00 06", "6A 82")) == "6a82"


def test_the_inverted_instruction_asks_for_one_byte_at_a_time() -> None:
    exchange = (("00 A4 04 00 03", "5B"), ("01", "5B"), ("02", "A4"), ("03", "90 00"))
    assert spoken("00A4040003010203", *exchange) == "9000"
    assert spoken("00B0000003", ("00 B0 00 00 03", "4F 11 4F 22 B0 33 90 00")) == "1122339000"


def test_le_that_a_program_leaves_behind_the_data_does_not_reach_the_card() -> None:
    assert spoken("00A404000201020000", ("00 A4 04 00 02", "A4"), ("01 02", "90 00")) == "9000"


@pytest.mark.parametrize(
    ("said", "why"),
    [("12", "procedure byte 12h"), ("A4A4", "more data than"), ("60" * (MAX_NULLS + 1), "always wants more time")],
)
def test_a_card_that_breaks_the_protocol_is_a_card_error(said: str, why: str) -> None:
    line = characters(bytes.fromhex("00A404000101"))
    next(line)
    with pytest.raises(CardError, match=why):
        hear(line, said)


def test_a_card_that_sends_too_much_is_a_card_error() -> None:
    line = characters(bytes.fromhex("00B0000001"))
    next(line)
    with pytest.raises(CardError, match="procedure byte 22h"):
        hear(line, "B01122")
    line = characters(bytes.fromhex("00B0000001"))
    next(line)
    with pytest.raises(CardError, match="more than it was asked for"):
        hear(line, "B011B0")


@pytest.mark.parametrize(
    ("command", "tpdu"),
    [
        (Command(0x00, 0x70), "0070000000"),
        (Command(0x00, 0xB2, 0x01, 0x0C, le=256), "00b2010c00"),
        (Command(0x00, 0x20, 0x00, 0x80, b"\x24\x12"), "00200080022412"),
        (SELECT, "00a404000e315041592e5359532e4444463031"),
    ],
)
def test_the_four_cases_of_a_command(command: Command, tpdu: str) -> None:
    assert to_tpdu(command.encode()).hex() == tpdu


def test_extended_lengths_do_not_go_over_t0() -> None:
    for command in (Command(0, 0xB0, le=300), Command(0, 0xD6, data=bytes(300))):
        with pytest.raises(NotSupported, match="extended length"):
            to_tpdu(command.encode())
    with pytest.raises(ProtocolError):
        to_tpdu(b"\x00\xa4")


def test_a_card_s_half_announces_and_corrects_lengths() -> None:
    card = T0Card(Chip(T0), nulls=2)
    assert run_t0(card, to_tpdu(SELECT.encode())) == (bytes((0x61, len(FCI))), 2)
    assert run_t0(card, bytes.fromhex("00C00000FF")) == (bytes((0x6C, len(FCI))), 2)
    assert run_t0(card, bytes((0, 0xC0, 0, 0, len(FCI)))) == (FCI + b"\x90\x00", 2)
    assert run_t0(card, bytes.fromhex("00C0000001")) == (b"\x69\x85", 2)
    assert run_t0(card, bytes.fromhex("00B2010C00")) == (b"\x6c\xfd", 2)
    assert run_t0(card, bytes.fromhex("00B2010CFD")) == (LONG + b"\x90\x00", 2)
    assert run_t0(card, bytes.fromhex("00B2020C00")) == (b"\x6a\x83", 2)


@given(tpdu=st.binary(min_size=5, max_size=265), said=st.lists(st.integers(0, 255), max_size=600))
def test_whatever_a_card_says_it_ends_in_an_answer_or_a_card_error(tpdu: bytes, said: Sequence[int]) -> None:
    line = characters(tpdu)
    sent, answer = next(line) or b"", b""
    try:
        for code in said:
            sent += line.send(code) or b""
    except StopIteration as done:
        answer = done.value
    except CardError:
        pass
    assert len(answer) <= 258
    assert len(sent) <= 5 + tpdu[4]
