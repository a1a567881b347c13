"""T=1: published blocks, each rule by a script, and the two halves against each other over a bad line."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw.errors import CardError, FramingError
from hw.t1 import MAX_WTX, T1, TRIES, Ask, Block, R, S, i_block, r_block, s_block
from sim.reader.contact import T1Card
from tests.hw.contact import FCI, LONG, SELECT, Chip
from tests.hw.contact import T1 as ATR


@pytest.mark.parametrize(
    ("block", "text"),
    [
        (s_block(S.IFS, b"\xfe"), "00 C1 01 FE 3E"),
        (s_block(S.IFS, b"\xfe", answer=True), "00 E1 01 FE 1E"),
        (s_block(S.WTX, b"\x01"), "00 C3 01 01 C3"),
        (s_block(S.WTX, b"\x01", answer=True), "00 E3 01 01 E3"),
        (s_block(S.RESYNCH), "00 C0 00 C0"),
        (s_block(S.RESYNCH, answer=True), "00 E0 00 E0"),
        (i_block(0, bytes.fromhex("00A4040005A000000003")), "00 00 0A 00 A4 04 00 05 A0 00 00 00 03 0C"),
        (i_block(0, b"\x90\x00"), "00 00 02 90 00 92"),
        (i_block(1, b"\x90\x00"), "00 40 02 90 00 D2"),
        (i_block(1, bytes.fromhex("00A4040008010203"), more=True), "00 60 08 00 A4 04 00 08 01 02 03 C0"),
        (i_block(0, bytes.fromhex("0405060708")), "00 00 05 04 05 06 07 08 0D"),
        (r_block(0), "00 80 00 80"),
        (r_block(1), "00 90 00 90"),
    ],
)
def test_published_blocks(block: Block, text: str) -> None:
    assert block.encode() == bytes.fromhex(text)
    assert Block.decode(bytes.fromhex(text)) == block


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00 80 00",
        "00 80 00 81",  # LRC
        "00 00 02 90 92",  # LEN
        "00 A0 00 A0",  # an R-block with a reserved bit
        "00 83 00 83",  # an error of no known kind
        "00 C4 00 C4",  # a request of no known kind
        "00 C1 00 C1",  # IFS of nothing
        "00 C0 01 00 C1",  # RESYNCH of something
        "00 01 00 01",  # an I-block with a reserved bit
        "00 00 FF" + "00" * 255 + "FF",  # LEN FFh is reserved
    ],
)
def test_what_is_no_block(text: str) -> None:
    with pytest.raises(FramingError):
        Block.decode(bytes.fromhex(text))


def test_blocks_say_what_they_are_without_their_content() -> None:
    assert str(i_block(1, b"\x11\x22", more=True)) == "I(1, more), 2 bytes"
    assert str(r_block(0, R.EDC)) == "R(0) EDC error"
    assert str(s_block(S.WTX, b"\x02")) == "S(WTX request) 2"
    assert "22" not in repr(i_block(1, b"\x11\x22"))


def follow(t1: T1, command: bytes, *script: tuple[Block, Block | bytes | None]) -> bytes:
    """Run an exchange: each pair is the block that has to be sent, and what comes for it."""
    steps = t1.exchange(command)
    ask = next(steps)
    try:
        for wanted, came in script:
            assert str(Block.decode(ask.block)) == str(wanted)
            assert ask.block == wanted.encode()
            ask = steps.send(came.encode() if isinstance(came, Block) else came)
    except StopIteration as done:
        answer: bytes = done.value
        return answer
    raise AssertionError(f"it goes on with {Block.decode(ask.block)}")


def hear(
    steps: Generator[Ask, bytes | None, Any], said: Sequence[bytes | None], sent: list[bytes] | None = None
) -> None:
    """Let one thing after the other come, and note what is sent for it."""
    for came in said:
        block = steps.send(came).block
        if sent is not None:
            sent.append(block)


OK = i_block(0, b"\x90\x00")
COMMAND = b"\x00\x0e\x00\x00"


def test_numbers_alternate_from_one_exchange_to_the_next() -> None:
    t1 = T1()
    for number in (0, 1, 0):
        answer = follow(t1, COMMAND, (i_block(number, COMMAND), i_block(number, b"\x90\x00")))
        assert answer == b"\x90\x00"


def test_a_long_command_goes_in_a_chain_of_the_card_s_size() -> None:
    t1 = T1(ifsc=8)
    command = bytes(range(20))
    script = [
        (i_block(0, command[:8], more=True), r_block(1)),
        (i_block(1, command[8:16], more=True), r_block(0)),
        (i_block(0, command[16:]), OK),
    ]
    assert follow(t1, command, *script) == b"\x90\x00"


def test_a_card_may_change_its_size_in_the_middle_of_a_chain() -> None:
    t1 = T1(ifsc=8)
    command = bytes(range(20))
    script = [
        (i_block(0, command[:8], more=True), s_block(S.IFS, b"\x10")),
        (s_block(S.IFS, b"\x10", answer=True), r_block(1)),
        (i_block(1, command[8:]), OK),
    ]
    assert follow(t1, command, *script) == b"\x90\x00"
    assert t1.ifsc == 16


def test_a_long_answer_comes_in_a_chain() -> None:
    script = [
        (i_block(0, COMMAND), i_block(0, b"\x01\x02", more=True)),
        (r_block(1), i_block(1, b"\x03\x04", more=True)),
        (r_block(0), i_block(0, b"\x90\x00")),
    ]
    assert follow(T1(), COMMAND, *script) == bytes.fromhex("010203049000")


@pytest.mark.parametrize(
    ("came", "error"), [(None, R.EDC), (b"\x00\x00\x02\x90\x00\x93", R.EDC), (i_block(1, b""), R.OTHER)]
)
def test_an_answer_that_went_astray_is_asked_for_again(came: Block | bytes | None, error: R) -> None:
    assert follow(T1(), COMMAND, (i_block(0, COMMAND), came), (r_block(0, error), OK)) == b"\x90\x00"


def test_a_command_that_went_astray_is_sent_again() -> None:
    script = [(i_block(0, COMMAND), r_block(0, R.EDC)), (i_block(0, COMMAND), OK)]
    assert follow(T1(), COMMAND, *script) == b"\x90\x00"


def test_a_block_of_an_answer_s_chain_that_went_astray_is_asked_for_again() -> None:
    script: list[tuple[Block, Block | None]] = [
        (i_block(0, COMMAND), i_block(0, b"\x01\x02", more=True)),
        (r_block(1), None),
        (r_block(1, R.EDC), i_block(1, b"\x90\x00")),
    ]
    assert follow(T1(), COMMAND, *script) == bytes.fromhex("01029000")


def test_time_is_granted_and_told_to_the_reader() -> None:
    steps = T1().exchange(COMMAND)
    next(steps)
    granted = steps.send(s_block(S.WTX, b"\x05").encode())
    assert granted == Ask(s_block(S.WTX, b"\x05", answer=True).encode(), waits=5)
    with pytest.raises(StopIteration) as done:
        steps.send(OK.encode())
    assert done.value.value == b"\x90\x00"


def test_time_is_not_granted_without_end() -> None:
    steps = T1().exchange(COMMAND)
    next(steps)
    with pytest.raises(CardError, match="always wants more time"):
        hear(steps, [s_block(S.WTX, b"\x01").encode()] * (MAX_WTX + 1))


def test_after_three_tries_both_begin_anew_and_the_command_goes_once_more() -> None:
    t1 = T1()
    script: list[tuple[Block, Block | None]] = [
        (i_block(0, COMMAND), None),
        (r_block(0, R.EDC), None),
        (r_block(0, R.EDC), None),
        (s_block(S.RESYNCH), s_block(S.RESYNCH, answer=True)),
        (s_block(S.IFS, b"\xfe"), s_block(S.IFS, b"\xfe", answer=True)),
        (i_block(0, COMMAND), OK),
    ]
    assert follow(t1, COMMAND, *script) == b"\x90\x00"
    assert follow(t1, COMMAND, (i_block(1, COMMAND), i_block(1, b"\x90\x00"))) == b"\x90\x00"


def test_a_card_that_stays_silent_is_given_up() -> None:
    steps = T1().exchange(COMMAND)
    sent = [next(steps).block]
    with pytest.raises(CardError, match="does not answer any more") as caught:
        hear(steps, [None] * 100, sent)
    assert [Block.decode(block).pcb for block in sent] == [0x00, 0x81, 0x81] + [0xC0] * TRIES
    assert "wipe its contacts" in caught.value.advice


def test_a_card_that_breaks_off_is_an_error_and_the_next_exchange_begins_anew() -> None:
    t1 = T1()
    with pytest.raises(CardError, match="broke off"):
        follow(t1, COMMAND, (i_block(0, COMMAND), s_block(S.ABORT)), (s_block(S.ABORT, answer=True), r_block(0)))
    steps = t1.exchange(COMMAND)
    assert next(steps).block == s_block(S.RESYNCH).encode()


def test_only_the_terminal_may_begin_anew() -> None:
    with pytest.raises(CardError, match="breaks its protocol"):
        follow(T1(), COMMAND, (i_block(0, COMMAND), s_block(S.RESYNCH)))


def test_a_card_that_does_not_take_our_size_goes_on_with_the_default() -> None:
    t1 = T1()
    steps = t1.negotiate()
    asked = [next(steps).block]
    with pytest.raises(StopIteration):
        hear(steps, [r_block(0, R.OTHER).encode()] * TRIES, asked)
    assert asked == [s_block(S.IFS, b"\xfe").encode()] * TRIES
    assert t1.ifsd == 32


def through(t1: T1, card: T1Card, command: bytes, out: list[bool], back: list[bool]) -> bytes:
    """An exchange over a line that loses a bit of the blocks marked so, on their way out and back."""
    steps = t1.exchange(command)
    ask = next(steps)
    try:
        for _ in range(10_000):
            block = ask.block
            if out and out.pop(0):
                block = block[:-1] + bytes((block[-1] ^ 0x10,))
            came: bytes = card.take(block)
            if back and back.pop(0):
                came = came[:-1] + bytes((came[-1] ^ 0x10,))
            ask = steps.send(came)
    except StopIteration as done:
        answer: bytes = done.value
        return answer
    raise AssertionError("it never ends")


def session(ifsc: int = 254, negotiate: bool = True) -> tuple[T1, T1Card, Chip]:
    chip = Chip(ATR)
    t1, card = T1(ifsc), T1Card(chip)
    if negotiate:
        steps = t1.negotiate()
        with pytest.raises(StopIteration):
            steps.send(card.take(next(steps).block))
    return t1, card, chip


@pytest.mark.parametrize("negotiate", [True, False])
def test_the_halves_understand_each_other(negotiate: bool) -> None:
    t1, card, chip = session(ifsc=10, negotiate=negotiate)
    for _ in range(3):
        assert through(t1, card, SELECT.encode(), [], []) == FCI + b"\x90\x00"
        assert through(t1, card, bytes.fromhex("00B2010C00"), [], []) == LONG + b"\x90\x00"
        card.wtx = [3, 1]
        assert through(t1, card, bytes.fromhex("000E000003010203"), [], []) == bytes.fromhex("0102039000")
    assert len(chip.commands) == 9


SOME_BAD = st.lists(st.booleans(), max_size=12)


@given(
    payload=st.binary(min_size=1, max_size=255),
    ifsc=st.integers(5, 254),
    negotiate=st.booleans(),
    wtx=st.lists(st.integers(0, 255), max_size=3),
    out=SOME_BAD,
    back=SOME_BAD,
)
def test_over_a_bad_line_the_answer_is_right_or_there_is_none(
    payload: bytes, ifsc: int, negotiate: bool, wtx: list[int], out: list[bool], back: list[bool]
) -> None:
    t1, card, chip = session(ifsc, negotiate)
    card.wtx = list(wtx)
    command = bytes((0x00, 0x0E, 0x00, 0x00, len(payload))) + payload
    try:
        assert through(t1, card, command, list(out), list(back)) == payload + b"\x90\x00"
    except CardError:
        assert sum(out) + sum(back) >= TRIES
    assert set(chip.commands) <= {command}
    assert len(chip.commands) <= 2  # after a new beginning, once more
    assert through(t1, card, command, [], []) == payload + b"\x90\x00"  # whatever was, the next one is right


SINGLE_LOSSES = st.lists(st.sampled_from([(False,), (True, False)]), max_size=20).map(
    lambda marks: [mark for pair in marks for mark in pair]
)


@given(out=SINGLE_LOSSES)
def test_single_losses_are_repaired_without_the_card_being_asked_twice(out: list[bool]) -> None:
    t1, card, chip = session(20)
    command = bytes((0x00, 0x0E, 0x00, 0x00, 255)) + LONG + b"\0\0"
    back = [False] * len(out)
    assert through(t1, card, command, out, back) == LONG + b"\0\0\x90\x00"
    assert len(chip.commands) == 1


ANYTHING = st.one_of(
    st.none(),
    st.binary(max_size=300),
    st.builds(lambda pcb, inf: Block(pcb, inf).encode(), st.integers(0, 255), st.binary(max_size=254)),
    st.sampled_from([s_block(S.WTX, b"\1").encode(), r_block(0).encode(), i_block(0, b"x", more=True).encode()]),
)


@given(command=st.binary(min_size=4, max_size=300), said=st.lists(ANYTHING, min_size=1, max_size=30))
def test_whatever_a_card_says_the_exchange_ends_in_an_answer_or_a_card_error(
    command: bytes, said: list[bytes | None]
) -> None:
    steps = T1().exchange(command)
    try:
        next(steps)
        for round_ in range(3_000):
            steps.send(said[round_ % len(said)])
    except (StopIteration, CardError):
        return
    raise AssertionError("it never ends")


@given(st.lists(st.binary(max_size=300) | ANYTHING.filter(lambda said: said is not None), max_size=30))
def test_whatever_a_terminal_says_the_card_answers_blocks(said: list[bytes]) -> None:
    card = T1Card(Chip(ATR))
    for data in said:
        Block.decode(card.take(data))
