"""ViVOpay frames, from what their maker prints to any bytes at all. No line, no loop."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hw.errors import FramingError
from hw.vivopay_frames import (
    GAP,
    MAX_DATA,
    MAX_FRAME,
    MAX_PAYLOAD,
    BurstPayload,
    Framer,
    Message,
    build_answer,
    build_command,
    build_event,
    build_payload,
    command_order,
    crc_order,
    is_command,
    parse,
)
from hw.vivopay_trace import describe, masked
from tests.hw.vivopay_golden import ALL, ANSWERS, BURST_CARD, COMMANDS, EVENTS, HEADER


@pytest.mark.parametrize("name", COMMANDS)
def test_published_commands_are_built(name: str) -> None:
    golden, message = COMMANDS[name]
    assert build_command(message.command, message.code, message.data) == golden


@pytest.mark.parametrize("name", ANSWERS)
def test_published_answers_are_built_by_who_stands_for_the_reader(name: str) -> None:
    golden, message = ANSWERS[name]
    assert build_answer(message.command, message.code, message.data) == golden


@pytest.mark.parametrize("name", EVENTS)
def test_published_events_are_built(name: str) -> None:
    golden, event = EVENTS[name]
    assert build_event(event.data) == golden


@pytest.mark.parametrize("name", ALL)
def test_published_frames_are_parsed(name: str) -> None:
    golden, said = ALL[name]
    assert parse(golden) == said
    if name != "command: set terminal data P":  # there is nothing to mask in the others
        assert masked(golden) == golden
    if isinstance(said, Message):
        assert is_command(golden, said) == name.startswith("command")
        assert f"{said.command:02X}-" not in describe(golden)  # each has a name


def test_the_published_burst_card() -> None:
    payload = parse(BURST_CARD)
    assert isinstance(payload, BurstPayload)
    assert (payload.status, payload.application) == (0, 0x0A)
    assert payload.tracks.startswith(b"%B6279257749132343^TEST CARD/VIVOTECH^")
    assert payload.tracks.endswith(b"?;6279257749132343=10128130072104350000?")
    assert build_payload(payload) == BURST_CARD
    hidden = masked(BURST_CARD)
    assert len(hidden) == len(BURST_CARD)
    assert crc_order(hidden) == "big"
    assert b"6279257749132343" not in hidden
    assert b"VIVOTECH^" not in hidden
    assert describe(BURST_CARD) == "burst card, application 0Ah, 98 bytes"


def test_whose_crc_goes_which_way() -> None:
    for command, code in ((0x18, 0x01), (0x02, 0x40), (0x19, 0x01)):
        assert command_order(command, code) == "little"
    for command, code in ((0x2C, 0x01), (0x2C, 0x13), (0x0B, 0x01), (0x19, 0x16)):
        assert command_order(command, code) == "big"
    assert build_command(0x18, 1, order="big")[-2:] == b"\xcd\xb3"


def test_eight_digits_may_be_a_number_s_also_where_they_name_a_terminal() -> None:
    golden, message = COMMANDS["set terminal data P"]
    hidden = parse(masked(golden))
    assert isinstance(hidden, Message)
    assert hidden.data == message.data.replace(b"87654321", b"00000000").replace(b"00015100", b"00000000")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\1\0\2%",
        COMMANDS["ping P"][0][:-1],
        COMMANDS["ping P"][0] + b"\0",
        COMMANDS["ping P"][0][:-1] + b"\0",
        BURST_CARD[:-2],
    ],
)
def test_what_is_no_frame(data: bytes) -> None:
    with pytest.raises(FramingError, match=f"{len(data)} bytes"):
        parse(data)
    assert describe(data) == f"{len(data)} bytes"
    assert masked(data) == bytes(len(data))


def test_more_data_than_a_frame_carries() -> None:
    with pytest.raises(FramingError, match="4097 bytes are more"):
        build_answer(0x02, 0, bytes(MAX_DATA + 1))
    whole = build_answer(0x02, 0, bytes(MAX_DATA))
    assert len(whole) == MAX_FRAME
    assert Framer().feed(whole) == [whole]
    too_long = bytes.fromhex(HEADER) + b"\x02\0" + (MAX_DATA + 1).to_bytes(2, "big")
    framer = Framer()
    ping = ANSWERS["ping P"][0]
    assert framer.feed(too_long + ping) == [ping]  # it is not waited for
    assert framer.dropped == len(too_long)


def pieces(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(places)]


frames = (
    st.builds(build_answer, st.integers(0, 255), st.integers(0, 255), st.binary(max_size=80))
    | st.sampled_from([golden for golden, _ in ALL.values()])
    | st.just(BURST_CARD)
)
cuts = st.lists(st.integers(0, 5000), max_size=20)
fragments = st.sampled_from(
    [
        *(bytes.fromhex(part) for part in (HEADER, "45 00 55", "45 00 55 00 40", "01 00 02 25", "01 00")),
        *(golden[:-2] for golden, _ in ALL.values()),
        BURST_CARD[:50],
        BURST_CARD[:-2],
        b"?",
    ]
)
garbage = st.binary(max_size=400) | st.lists(fragments | st.binary(max_size=5), max_size=30).map(b"".join)


@given(sent=st.lists(frames, max_size=6), cuts=cuts)
def test_how_frames_are_split_and_joined_makes_no_difference(sent: list[bytes], cuts: list[int]) -> None:
    framer = Framer()
    found = [frame for piece in pieces(b"".join(sent), cuts) for frame in framer.feed(piece)]
    assert found == sent
    assert (framer.held, framer.dropped) == (0, 0)


@given(noise=st.binary(max_size=300).map(lambda data: data.translate(None, b"VE\x01")), sent=frames)
def test_noise_before_a_frame_is_dropped_and_counted(noise: bytes, sent: bytes) -> None:
    framer = Framer()
    assert framer.feed(noise + sent) == [sent]
    assert framer.dropped == len(noise)


@given(noise=st.lists(garbage, max_size=4), sent=frames)
def test_after_any_bytes_and_a_pause_the_next_frame_is_found(noise: list[bytes], sent: bytes) -> None:
    time = [0.0]
    framer = Framer(lambda: time[0])
    for piece in noise:
        framer.feed(piece)
        assert framer.held < MAX_FRAME
    time[0] += 2 * GAP
    assert framer.feed(sent)[-1] == sent
    assert framer.held == 0


@given(noise=garbage, sent=frames)
@example(noise=bytes.fromhex("01000225"), sent=ANSWERS["ping P"][0])
def test_after_any_bytes_what_a_forgotten_beginning_holds_back_is_bounded(noise: bytes, sent: bytes) -> None:
    framer = Framer()
    framer.feed(noise)
    framer.reset()
    assert framer.held == 0
    assert framer.feed(sent) == [sent]
    framer.feed(noise)
    found = [frame for _ in range(MAX_FRAME // len(sent) + 2) for frame in framer.feed(sent)]
    assert sent in found  # the longest beginning has run out by then


@pytest.mark.parametrize(
    "start", ["01 00 02 25", "01 00 02 25 3F", "01 00 02 25 31 3F 3F", "01 00 02 3B 31", "45 00", "01"]
)
def test_a_beginning_that_was_none_holds_nothing_back(start: str) -> None:
    framer, ping = Framer(), ANSWERS["ping P"][0]
    assert framer.feed(bytes.fromhex(start)) == []
    assert framer.feed(ping) == [ping]


def test_a_frame_whose_length_was_bent_gives_up_those_behind_it_after_a_pause() -> None:
    time = [0.0]
    framer, ping, cancel = Framer(lambda: time[0]), ANSWERS["ping P"][0], ANSWERS["cancel D"][0]
    bent = bytearray(ping)
    bent[12] = 0x01
    assert framer.feed(bytes(bent) + cancel) == []
    time[0] = GAP + 0.1
    assert framer.feed(ping) == [cancel, ping]
    assert framer.dropped == len(bent)


@given(inner=frames, cuts=cuts)
def test_what_looks_like_a_frame_inside_a_good_one_is_data(inner: bytes, cuts: list[int]) -> None:
    outer = build_answer(0x2C, 0, inner + b"\x90\0")
    framer = Framer()
    assert [frame for piece in pieces(outer, cuts) for frame in framer.feed(piece)] == [outer]


@given(sent=frames, place=st.integers(0, 200), bit=st.integers(0, 7))
def test_a_bit_that_the_line_flips_is_never_another_frame(sent: bytes, place: int, bit: int) -> None:
    bent = bytearray(sent)
    bent[place % len(bent)] ^= 1 << bit
    assert Framer().feed(bytes(bent)) == []


@given(data=garbage)
def test_any_bytes_are_a_frame_or_a_framing_error_and_can_be_told_of(data: bytes) -> None:
    try:
        parse(data)
    except FramingError:
        assert masked(data) == bytes(len(data))
    assert isinstance(describe(data), str)


@given(command=st.integers(0, 255), code=st.integers(0, 255), data=garbage)
def test_any_frame_can_be_masked_and_is_a_frame_then(command: int, code: int, data: bytes) -> None:
    for sent in (build_command(command, code, data), build_answer(command, code, data)):
        hidden = masked(sent)
        assert len(hidden) == len(sent)
        parse(hidden)


def test_a_flood_without_an_end_holds_no_more_than_a_frame() -> None:
    framer = Framer()
    floods = (
        b"V",
        b"E",
        b"\1\0\2%",
        b"\1\0\2%?",
        bytes.fromhex(HEADER) + b"\x02\0\x10\0",
        b"\x45\0\x55\0\x40",
        b"?",
    )
    for flood in floods:
        for _ in range(40):
            assert framer.feed(flood * (4000 // len(flood))) == []
            assert framer.held <= max(MAX_FRAME, MAX_PAYLOAD)
