"""Both makes' frames: those of pcscd and of the manuals; any split and noise; nothing secret in a trace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw import acs_frames, gemcore_frames
from hw.apdu import Command
from hw.ccid import Kind, Message
from hw.envelope import Envelope, Signal
from hw.errors import FramingError
from hw.t1 import Block, R, S, i_block, r_block, s_block
from tests.hw.test_ccid import MESSAGES

GEM, ACS = gemcore_frames.ENVELOPE, acs_frames.ENVELOPE
T0_SELECT = Command(0x00, 0xA4, 0x04, 0x00, b"1PAY.SYS.DDF01", le=256).encode()
PN532_TYPE_B = Command(0xFF, 0x00, 0x00, 0x00, bytes.fromhex("D44A010300")).encode()
ACS_ATR = bytes.fromhex("3B2A00806524B00002008290 00".replace(" ", ""))


def xfr(seq: int, data: bytes) -> Message:
    return Message(Kind.XFR_BLOCK, data, 0, seq)


def block(seq: int, data: str | bytes) -> Message:
    return Message(Kind.DATA_BLOCK, bytes.fromhex(data) if isinstance(data, str) else data, 0, seq)


def slot_status(seq: int) -> Message:
    return Message(Kind.SLOT_STATUS, b"", 0, seq, b"\x01\x00\x00")


def power_on(seq: int) -> Message:
    return Message(Kind.POWER_ON, b"", 0, seq, b"\x01\x00\x00")


GOLDEN: Sequence[tuple[Envelope, str, Message]] = [
    # pcscd 1.9.9 with libccidtwin 1.5.2, and answers that they took
    (GEM, "03 06 6B 01 00 00 00 00 00 00 00 00 02 6D", Message(Kind.ESCAPE, b"\x02")),
    (GEM, "03 06 6B 03 00 00 00 00 01 00 00 00 01 01 01 6D", Message(Kind.ESCAPE, b"\x01\x01\x01", 0, 1)),
    (GEM, "03 06 65 00 00 00 00 00 02 00 00 00 62", Message(Kind.GET_SLOT_STATUS, b"", 0, 2)),
    (GEM, "03 06 81 00 00 00 00 00 02 01 00 00 87", slot_status(2)),
    (GEM, "03 06 62 00 00 00 00 00 0C 01 00 00 6A", power_on(12)),
    (GEM, "03 06 80 04 00 00 00 00 0C 00 00 00 3B 60 00 00 D6", block(12, "3B600000")),
    (GEM, "03 06 80 09 00 00 00 00 0C 00 00 00 3B E0 00 00 81 31 FE 45 EB BB", block(12, "3BE000008131FE45EB")),
    (
        GEM,
        "03 06 61 05 00 00 00 00 56 00 00 00 11 00 00 0A 00 2C",
        Message(Kind.SET_PARAMETERS, bytes.fromhex("1100000A00"), 0, 0x56),
    ),
    (
        GEM,
        "03 06 61 07 00 00 00 00 56 01 00 00 11 10 00 45 00 FE 00 8E",
        Message(Kind.SET_PARAMETERS, bytes.fromhex("1110004500FE00"), 0, 0x56, b"\x01\x00\x00"),
    ),
    (
        GEM,
        "03 06 6F 14 00 00 00 00 57 00 00 00 00 A4 04 00 0E 31 50 41 59 2E 53 59 53 2E 44 44 46 30 31 00 E0",
        xfr(0x57, T0_SELECT),
    ),
    (GEM, "03 06 80 02 00 00 00 00 57 00 00 00 61 2E 9F", block(0x57, "612E")),
    (GEM, "03 06 6F 05 00 00 00 00 58 00 00 00 00 C0 00 00 2E D9", xfr(0x58, bytes.fromhex("00C000002E"))),
    (GEM, "03 06 6F 05 00 00 00 00 57 00 00 00 00 C1 01 FE 3E 38", xfr(0x57, bytes.fromhex("00C101FE3E"))),
    (GEM, "03 06 80 05 00 00 00 00 57 00 00 00 00 E1 01 FE 1E D7", block(0x57, "00E101FE1E")),
    (
        GEM,
        "03 06 6F 18 00 00 00 00 58 00 00 00"
        " 00 00 14 00 A4 04 00 0E 31 50 41 59 2E 53 59 53 2E 44 44 46 30 31 00 DD 2A",
        xfr(0x58, i_block(0, T0_SELECT).encode()),
    ),
    (GEM, "03 06 63 00 00 00 00 00 2B 00 00 00 4D", Message(Kind.POWER_OFF, b"", 0, 0x2B)),
    (GEM, "03 06 81 00 00 00 00 00 2B 01 00 00 AE", slot_status(0x2B)),
    # ACR122S manual; its checks computed
    (ACS, "02 62 00 00 00 00 00 01 01 00 00 62 03", power_on(1)),
    (ACS, "02 80 0D 00 00 00 00 01 00 00 00 3B 2A 00 80 65 24 B0 00 02 00 82 90 00 FC 03", block(1, ACS_ATR)),
    (ACS, "02 63 00 00 00 00 00 02 00 00 00 61 03", Message(Kind.POWER_OFF, b"", 0, 2)),
    (ACS, "02 6F 0A 00 00 00 00 04 00 00 00 FF 00 00 00 05 D4 4A 01 03 00 07 03", xfr(4, PN532_TYPE_B)),
    # ACR1281S manual, sections 8.1 and 8.6, as printed there
    (ACS, "02 62 00 00 00 00 00 00 00 00 00 62 03", Message(Kind.POWER_ON)),
    (
        ACS,
        "02 6B 06 00 00 00 01 00 00 00 00 E0 00 00 28 01 05 A0 03",
        Message(Kind.ESCAPE, bytes.fromhex("E00000280105"), 1),
    ),
    (
        ACS,
        "02 83 06 00 00 00 01 00 02 00 00 E1 00 00 00 01 05 63 03",
        Message(Kind.ESCAPE_ANSWER, bytes.fromhex("E10000000105"), 1, 0, b"\x02\x00\x00"),
    ),
]

SIGNALS: Sequence[tuple[Envelope, str, Signal]] = [
    (GEM, "03 15 16", Signal.NAK),
    (GEM, "50 02", Signal.REMOVED),
    (GEM, "50 03", Signal.INSERTED),
    (GEM, "80", Signal.WAIT),
    (GEM, "FF", Signal.WAIT),
    (ACS, "02 00 00 03", Signal.ACCEPTED),
    (ACS, "02 FF FF 03", Signal.NAK),
    (ACS, "02 FE FE 03", Signal.NAK),
    (ACS, "02 FD FD 03", Signal.NAK),
    (ACS, "02 FC FC 03", Signal.NAK),
    (ACS, "02 00 00 00 00 00 00 00 00 00 00 00 03", Signal.NAK),
]
ENVELOPES = st.sampled_from([GEM, ACS])


@pytest.mark.parametrize(("envelope", "text", "message"), GOLDEN)
def test_golden_frames(envelope: Envelope, text: str, message: Message) -> None:
    frame = bytes.fromhex(text)
    assert envelope.build(message) == frame
    assert envelope.parse(frame) == message
    assert envelope.framer().feed(frame) == [frame]


@pytest.mark.parametrize(("envelope", "text", "signal"), SIGNALS)
def test_frames_without_a_message(envelope: Envelope, text: str, signal: Signal) -> None:
    frame = bytes.fromhex(text)
    assert envelope.parse(frame) is signal
    assert envelope.framer().feed(frame) == [frame]


def test_what_asks_for_the_last_answer_is_the_makes_own() -> None:
    assert GEM.NAK.hex() == "031516"
    assert ACS.NAK.hex() == "02" + "00" * 11 + "03"


@pytest.mark.parametrize("envelope", [GEM, ACS])
def test_a_frame_with_one_wrong_bit_is_none(envelope: Envelope) -> None:
    frame = envelope.build(block(7, "00E101FE1E"))
    for place in range(len(frame)):
        for bit in range(8):
            damaged = frame[:place] + bytes((frame[place] ^ 1 << bit,)) + frame[place + 1 :]
            with pytest.raises(FramingError):
                envelope.parse(damaged)


@given(
    envelope=ENVELOPES, messages=st.lists(MESSAGES, max_size=4), cuts=st.lists(st.integers(0, 1000), max_size=20)
)
def test_any_split_gives_the_same_frames(envelope: Envelope, messages: list[Message], cuts: list[int]) -> None:
    frames = [envelope.build(message) for message in messages]
    stream = b"".join(frames)
    places = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    framer, found = envelope.framer(), []
    for start, end in pairwise(places):
        found += framer.feed(stream[start:end])
    assert (found, framer.dropped) == (frames, 0)


@given(envelope=ENVELOPES, noise=st.binary(max_size=600), message=MESSAGES)
def test_after_any_noise_a_good_frame_is_found_once_the_noise_is_over(
    envelope: Envelope, noise: bytes, message: Message
) -> None:
    framer, frame = envelope.framer(), envelope.build(message)
    framer.feed(noise)
    found = [one for _ in range(25) for one in framer.feed(frame)]  # a false beginning takes 274 bytes at most
    assert frame in found
    framer.feed(noise)
    framer.reset()
    assert framer.feed(frame) == [frame]


@given(envelope=ENVELOPES, noise=st.lists(st.binary(max_size=300), max_size=20))
def test_a_framer_holds_one_frame_at_most(envelope: Envelope, noise: list[bytes]) -> None:
    framer = envelope.framer()
    for piece in noise:
        for frame in framer.feed(piece):
            envelope.parse(frame)
        assert len(framer._held) < 275


@pytest.mark.parametrize("envelope", [GEM, ACS])
def test_a_damaged_frame_is_told_at_once_and_the_next_is_not_lost(envelope: Envelope) -> None:
    good, bad = envelope.build(slot_status(1)), bytearray(envelope.build(block(2, "9000")))
    bad[3 if envelope is GEM else 2] = 20  # says that it is longer than it is
    framer = envelope.framer()
    assert framer.feed(bytes(bad)) == []
    found = framer.feed(good * 2)
    assert found[0] == envelope.LEAD
    assert envelope.parse(found[0]) is Signal.DAMAGED
    assert found[-1] == good


RECORD = bytes.fromhex("7017 5A08 4761739001010119 5F200A 43415244 2F564953 4120".replace(" ", ""))


def traced(envelope: Envelope, *messages: Message) -> list[Message]:
    """A conversation as a trace would show it."""
    language = envelope.language()
    shown = []
    for message in messages:
        frame = envelope.build(message)
        masked = language.masked(frame)
        language.describe(frame)
        found = envelope.parse(masked)
        assert isinstance(found, Message)
        assert len(masked) == len(frame)
        shown.append(found)
    return shown


def unread(data: bytes) -> bool:
    """Whether neither number nor name is in these bytes."""
    return b"\x90\x01\x01\x01" not in data and b"CARD" not in data and b"\x73\x90" not in data


def test_card_data_over_t0_is_masked() -> None:
    asked = xfr(1, bytes.fromhex("00B2010C18"))
    shown = traced(GEM, asked, block(1, RECORD + b"\x90\x00"))
    assert shown[0] == asked
    assert unread(shown[1].data)
    assert (len(shown[1].data), shown[1].data[:4], shown[1].data[-2:]) == (27, RECORD[:4], b"\x90\x00")


def test_card_data_over_t1_is_masked_and_the_block_stays_one() -> None:
    asked = xfr(1, i_block(0, bytes.fromhex("00B2010C00")).encode())
    shown = traced(GEM, asked, block(1, i_block(0, RECORD + b"\x90\x00").encode()))
    assert unread(shown[1].data)
    assert Block.decode(shown[1].data).inf[:4] == RECORD[:4]


@given(cut=st.integers(0, len(RECORD)), t1=st.booleans())
def test_an_answer_in_pieces_shows_nothing_wherever_it_is_cut(cut: int, t1: bool) -> None:
    if t1:
        first = i_block(0, RECORD[:cut], more=True).encode()
        second = i_block(1, RECORD[cut:] + b"\x90\x00").encode()
        ask = (xfr(1, i_block(0, bytes.fromhex("00B2010C00")).encode()), xfr(2, bytes.fromhex("00900090")))
    else:
        first = RECORD[:cut] + bytes((0x61, len(RECORD) - cut))
        second = RECORD[cut:] + b"\x90\x00"
        ask = (xfr(1, bytes.fromhex("00B2010C00")), xfr(2, bytes.fromhex("00C0000010")))
    shown = traced(GEM, ask[0], block(1, first), ask[1], block(2, second))
    joined = shown[1].data[3 * t1 :] + shown[3].data[3 * t1 :]
    assert unread(joined)
    assert unread(shown[1].data + shown[3].data)


def test_a_pin_is_masked_and_noise_after_a_card_s_answer_too() -> None:
    verify = bytes.fromhex("0020008008241234FFFFFFFFFF")
    shown = traced(GEM, xfr(1, verify), xfr(2, i_block(0, verify).encode()), block(2, b"\x12\x34\x56"))
    assert shown[0].data == verify[:5] + bytes(8)
    assert Block.decode(shown[1].data).inf == verify[:5] + bytes(8)
    assert shown[2].data == bytes(3)


@given(size=st.integers(1, 13))
def test_a_pin_in_a_chain_of_blocks_is_masked_wherever_it_is_cut(size: int) -> None:
    verify = bytes.fromhex("00200080082412345678FFFFFF")
    pieces = [verify[at : at + size] for at in range(0, len(verify), size)]
    blocks = [i_block(number, piece, more=number < len(pieces) - 1).encode() for number, piece in enumerate(pieces)]
    read = i_block(0, bytes.fromhex("00B2010C00")).encode()
    shown = traced(GEM, *(xfr(1, block) for block in blocks), xfr(1, read))
    said = b"".join(Block.decode(one.data).inf for one in shown[:-1])
    assert len(said) == len(verify)
    assert said[5:] == bytes(8)
    assert shown[-1].data == read
    shown = traced(GEM, xfr(1, blocks[0]), xfr(1, bytes.fromhex("00C000C0")), xfr(1, read))
    assert shown[-1].data == read


@pytest.mark.parametrize("size", [1, 5, 7])
@pytest.mark.parametrize(
    "again",
    [
        pytest.param(lambda sent: [sent], id="echoed"),
        pytest.param(lambda sent: [block(1, r_block(0, R.EDC).encode()), sent], id="asked for again"),
        pytest.param(
            lambda _: [
                block(1, s_block(S.WTX, b"\1").encode()),
                xfr(1, s_block(S.WTX, b"\1", answer=True).encode()),
            ],
            id="more time",
        ),
        pytest.param(
            lambda _: [
                block(1, s_block(S.IFS, b"\x20").encode()),
                xfr(1, s_block(S.IFS, b"\x20", answer=True).encode()),
            ],
            id="another size",
        ),
    ],
)
def test_a_pin_in_a_chain_of_blocks_stays_masked_whatever_comes_between_them(
    size: int, again: Callable[[Message], list[Message]]
) -> None:
    verify = bytes.fromhex("00200080082412345678FFFFFF")
    pieces = [verify[at : at + size] for at in range(0, len(verify), size)]
    said: list[Message] = []
    for number, piece in enumerate(pieces):
        sent = xfr(1, i_block(number, piece, more=number < len(pieces) - 1).encode())
        said += [sent, *again(sent)]
    shown = [Block.decode(one.data) for one in traced(GEM, *said) if one.kind is Kind.XFR_BLOCK]
    data = b"".join(one.inf for one in shown if one.is_i)
    assert data.replace(b"\0", b"").strip(b"\x20\x80\x08") == b""
    assert not {0x12, 0x34, 0x56, 0x78} & set(data)


def test_a_command_of_the_next_card_is_none_of_the_last_one_s_blocks() -> None:
    verify = bytes.fromhex("00200080082412345678FFFFFF")
    pieces = [
        xfr(1, i_block(number, inf, more=number == 0).encode())
        for number, inf in enumerate((verify[:7], verify[7:]))
    ]
    read = xfr(1, i_block(0, bytes.fromhex("00B2010C00")).encode())
    shown = traced(GEM, read, power_on(2), *pieces)
    assert Block.decode(shown[-1].data).inf == bytes(6)
    assert traced(GEM, pieces[0], power_on(2), read)[-1] == read


TAIL = bytes.fromhex("4111111111111111D28122011234567890123F")
"""A track whose first two digits are a tag, and the next two its length."""
REST = bytes.fromhex("00C0000013")


@pytest.mark.parametrize("t1", [False, True])
@pytest.mark.parametrize("between", ["nothing", "a time extension", "a piece of nothing"])
def test_the_last_piece_of_an_answer_may_look_whole(t1: bool, between: str) -> None:
    def asked(number: int, apdu: bytes) -> Message:
        return xfr(number, i_block(number, apdu).encode() if t1 else apdu)

    def said(number: int, apdu: bytes) -> Message:
        return block(number, i_block(number, apdu).encode() if t1 else apdu)

    conversation = [asked(0, bytes.fromhex("00B2010C00")), said(0, b"\x57\x13\x61\x13"), asked(1, REST)]
    if between == "a time extension":
        conversation.append(Message(Kind.DATA_BLOCK, b"", 0, 1, b"\x80\1\0"))
    if between == "a piece of nothing":
        conversation += [said(1, b"\x61\x13"), asked(0, REST)]
    shown = traced(GEM, *conversation, said(0, TAIL + b"\x90\0"), asked(1, REST), said(1, b"\x70\0\x90\0"))
    first, last, whole = shown[1].data[3 * t1 :], shown[-3].data[3 * t1 :], shown[-1].data[3 * t1 :]
    assert first[:4] == b"\0\0\x61\x13"
    assert last[:21] == bytes(19) + b"\x90\0"
    assert whole[:4] == b"\x70\0\x90\0"


def test_where_the_rest_of_an_answer_is_may_be_said_in_two_blocks() -> None:
    def said(number: int, inf: bytes, *, more: bool = False) -> Message:
        return block(1, i_block(number, inf, more=more).encode())

    asked = [
        xfr(1, i_block(number, apdu).encode()) for number, apdu in enumerate((bytes.fromhex("00B2010C00"), REST))
    ]
    answers = [said(0, b"\x57\x13\x61", more=True), xfr(1, r_block(1).encode()), said(1, b"\x13")]
    shown = traced(GEM, asked[0], *answers, asked[1], said(0, TAIL + b"\x90\0"))
    assert Block.decode(shown[-1].data).inf == bytes(19) + b"\x90\0"


@given(envelope=ENVELOPES, frames=st.lists(st.binary(max_size=40) | MESSAGES, max_size=10))
def test_a_trace_fails_on_nothing(envelope: Envelope, frames: list[bytes | Message]) -> None:
    language = envelope.language()
    for one in frames:
        frame = envelope.build(one) if isinstance(one, Message) else one
        assert language.describe(frame)
        envelope.parse(language.masked(frame))
