"""CCID messages: header, status, what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw.ccid import ANSWERS, ERRORS, FAILED, MAX_DATA, TIME_EXTENSION, Icc, Kind, Message, measure
from hw.errors import CardError, CardGone, FramingError, ProtocolError

MESSAGES = st.builds(
    Message,
    st.sampled_from(Kind),
    st.binary(max_size=MAX_DATA),
    st.integers(0, 255),
    st.integers(0, 255),
    st.binary(min_size=3, max_size=3),
)


@given(MESSAGES)
def test_what_is_built_is_parsed(message: Message) -> None:
    encoded = message.encode()
    assert Message.decode(encoded) == message
    assert measure(encoded) == len(encoded)
    assert [measure(encoded[:size]) for size in range(5)] == [None] * 5


@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_a_framing_error(data: bytes) -> None:
    try:
        found = Message.decode(data)
    except FramingError:
        return
    assert found.encode() == data


def test_what_is_no_message_is_told_early() -> None:
    assert measure(b"\x00") == 0
    assert measure(b"\x80\x00\x01\x01") == 0  # 65,792 bytes and more
    assert measure(b"\x80\x06\x01\x00\x00") == 0  # 262
    assert measure(b"\x80\x05\x01\x00\x00") == 271
    with pytest.raises(FramingError, match="type 00h"):
        Message.decode(bytes(10))
    with pytest.raises(FramingError, match="no CCID message"):
        Message.decode(bytes.fromhex("80060100000000000000") + bytes(262))
    with pytest.raises(ProtocolError, match="more than one message carries"):
        Message(Kind.XFR_BLOCK, bytes(262)).encode()


def answer(first: int, second: int = 0, kind: Kind = Kind.DATA_BLOCK) -> Message:
    return Message(kind, b"", 0, 0, bytes((first, second, 0)))


def test_status_says_card_and_success() -> None:
    assert [answer(first).icc for first in range(4)] == [Icc.ACTIVE, Icc.INACTIVE, Icc.ABSENT, None]
    assert (answer(FAILED).failed, answer(TIME_EXTENSION).failed, answer(0xC0).failed) == (True, False, True)
    assert answer(TIME_EXTENSION).extends_time
    assert answer(0, 0x81).check("x") == answer(0, 0x81)  # bError means nothing where it did not fail
    with pytest.raises(CardGone, match="x: the card was taken away"):
        answer(Icc.ABSENT | FAILED, 0xFE).check("x")
    with pytest.raises(CardError, match="x: the card does not answer"):
        answer(FAILED, 0xFE).check("x")
    with pytest.raises(CardError, match="x: the reader's error is 0Ah"):
        answer(FAILED, 0x0A).check("x")
    assert answer(Icc.ABSENT, 0, Kind.ESCAPE_ANSWER).check("x").icc is Icc.ABSENT  # an empty slot is no error there


@pytest.mark.parametrize("code", ERRORS)
def test_every_error_of_the_standard_has_its_words(code: int) -> None:
    assert answer(FAILED, code).why == ERRORS[code]
    assert ERRORS[code] in str(answer(FAILED, code))


def test_every_command_has_its_answer() -> None:
    assert set(ANSWERS) == {kind for kind in Kind if not kind.is_answer}
    assert all(kind.is_answer for kind in ANSWERS.values())


def test_messages_say_what_they_are_without_their_data() -> None:
    message = Message(Kind.XFR_BLOCK, b"\x47\x61\x73\x90", 0, 7)
    assert str(message) == "xfr block, slot 0, seq 7, 4 bytes"
    assert "Gas" not in repr(message)
    assert (
        str(answer(0xC3)) == "data block, slot 0, seq 0, card unknown, failed: the reader does not know the command"
    )
