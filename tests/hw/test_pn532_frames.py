"""The PN532's frames, against published and captured ones, and cut out of any stream.

Where each comes from: [P] printed in a public source, [X] sent by an unmodified libnfc or nfcpy, [D] made of a
published payload.
"""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw import pn532_frames as frames
from hw.errors import FramingError, ProtocolError
from hw.pn532_frames import ACK, BROKEN, ERROR, FRAME_LIMIT, NACK, WAKE_UP, Framer, answer, build, command, parse
from hw.pn532_targets import FORMS, TYPE_A, TYPE_B, parse_targets
from hw.pn532_trace import language

PPSE = bytes.fromhex("00A404000E325041592E5359532E444446303100")
FCI = bytes.fromhex(
    "6F2C840E325041592E5359532E4444463031A51ABF0C1761154F07A000000004306087010150074D41455354524F9000"
)

COMMANDS = {
    "[P] GetFirmwareVersion (UM0701-02, figure 13; nfcpy)": (0x02, "", "00 00 FF 02 FE D4 02 2A 00"),
    "[P] SAMConfiguration (nfcpy)": (0x14, "010000", "00 00 FF 05 FB D4 14 01 00 00 17 00"),
    "[P] SAMConfiguration (Waveshare; libnfc)": (0x14, "01", "00 00 FF 03 FD D4 14 01 17 00"),
    "[D] SAMConfiguration (Adafruit)": (0x14, "011401", "00 00 FF 05 FB D4 14 01 14 01 02 00"),
    "[P] Diagnose (libnfc)": (0x00, "006C69626E6663", "00 00 FF 09 F7 D4 00 00 6C 69 62 6E 66 63 BE 00"),
    "[P] SetParameters": (0x12, "14", "00 00 FF 03 FD D4 12 14 06 00"),
    "[X] RF off": (0x32, "0100", "00 00 FF 04 FC D4 32 01 00 F9 00"),
    "[X] RF on": (0x32, "0101", "00 00 FF 04 FC D4 32 01 01 F8 00"),
    "[X] RF timings": (0x32, "02000B0A", "00 00 FF 06 FA D4 32 02 00 0B 0A E3 00"),
    "[X] retries": (0x32, "05000102", "00 00 FF 06 FA D4 32 05 00 01 02 F2 00"),
    "[X] retries for ever": (0x32, "05FFFFFF", "00 00 FF 06 FA D4 32 05 FF FF FF F8 00"),
    "[P] type A (libnfc, a real log)": (0x4A, "0100", "00 00 FF 04 FC D4 4A 01 00 E1 00"),
    "[P] FeliCa": (0x4A, "010100FFFF0000", "00 00 FF 09 F7 D4 4A 01 01 00 FF FF 00 00 E2 00"),
    "[P] type B": (0x4A, "010300", "00 00 FF 05 FB D4 4A 01 03 00 DE 00"),
    "[D] SELECT PPSE": (
        0x40,
        "01" + PPSE.hex(),
        "00 00 FF 17 E9 D4 40 01 00 A4 04 00 0E 32 50 41 59 2E 53 59 53 2E 44 44 46 30 31 00 8F 00",
    ),
    "[X] SELECT PPSE in a raw block (nfcpy)": (
        0x42,
        "02" + PPSE.hex(),
        "00 00 FF 17 E9 D4 42 02 00 A4 04 00 0E 32 50 41 59 2E 53 59 53 2E 44 44 46 30 31 00 8C 00",
    ),
    "[P] InDeselect": (0x44, "00", "00 00 FF 03 FD D4 44 00 E8 00"),
    "[P] InRelease": (0x52, "00", "00 00 FF 03 FD D4 52 00 DA 00"),
    "[X] SetSerialBaudRate": (0x10, "07", "00 00 FF 03 FD D4 10 07 15 00"),
    "[X] PowerDown": (0x16, "F0", "00 00 FF 03 FD D4 16 F0 26 00"),
    "[P] unit test (nfcpy)": (0x00, "313233", "00 00 FF 05 FB D4 00 31 32 33 96 00"),
}
ANSWERS = {
    "[P] SAMConfiguration": (0x14, "", "00 00 FF 02 FE D5 15 16 00"),
    "[X] GetFirmwareVersion": (0x02, "32010607", "00 00 FF 06 FA D5 03 32 01 06 07 E8 00"),
    "[X] Diagnose": (0x00, "006C69626E6663", "00 00 FF 09 F7 D5 01 00 6C 69 62 6E 66 63 BC 00"),
    "[X] SetParameters": (0x12, "", "00 00 FF 02 FE D5 13 18 00"),
    "[X] RFConfiguration": (0x32, "", "00 00 FF 02 FE D5 33 F8 00"),
    "[P] no card": (0x4A, "00", "00 00 FF 03 FD D5 4B 00 E0 00"),
    "[P] a MIFARE card": (0x4A, "010100040804FB0EE20B", "00 00 FF 0C F4 D5 4B 01 01 00 04 08 04 FB 0E E2 0B D8 00"),
    "[D] a card of ISO 14443-4": (
        0x4A,
        "0101000420040801020305788070" + "00",
        "00 00 FF 11 EF D5 4B 01 01 00 04 20 04 08 01 02 03 05 78 80 70 00 3B 00",
    ),
    "[D] PPSE": (
        0x40,
        "00" + FCI.hex(),
        "00 00 FF 33 CD D5 41 00 6F 2C 84 0E 32 50 41 59 2E 53 59 53 2E 44 44 46 30 31 A5 1A BF 0C 17 61 15 4F 07 "
        "A0 00 00 00 04 30 60 87 01 01 50 07 4D 41 45 53 54 52 4F 90 00 EB 00",
    ),
    "[D] RF timeout": (0x40, "01", "00 00 FF 03 FD D5 41 01 E9 00"),
    "[P] InDeselect": (0x44, "00", "00 00 FF 03 FD D5 45 00 E6 00"),
    "[X] InRelease": (0x52, "00", "00 00 FF 03 FD D5 53 00 D8 00"),
    "[X] SetSerialBaudRate": (0x10, "", "00 00 FF 02 FE D5 11 1A 00"),
    "[X] PowerDown": (0x16, "00", "00 00 FF 03 FD D5 17 00 14 00"),
    "[P] unit test (nfcpy)": (0x00, "343536", "00 00 FF 05 FB D5 01 34 35 36 8B 00"),
}
SAM = command(0x14, b"\x01")


@pytest.mark.parametrize(("code", "data", "frame"), COMMANDS.values(), ids=COMMANDS)
def test_published_commands_are_built(code, data, frame):
    assert command(code, bytes.fromhex(data)) == bytes.fromhex(frame)
    assert Framer().feed(bytes.fromhex(frame)) == [bytes.fromhex(frame)]


@pytest.mark.parametrize(("code", "data", "frame"), ANSWERS.values(), ids=ANSWERS)
def test_published_answers_are_parsed(code, data, frame):
    whole = bytes.fromhex(frame)
    assert parse(whole) == bytes((0xD5, code + 1)) + bytes.fromhex(data)
    assert Framer().feed(whole) == [whole]
    assert answer(code, bytes.fromhex(data)) == whole


def test_an_extended_frame_as_in_figure_14_of_the_manual():
    published = bytes.fromhex("0000FFFFFF0002FED4022A00")
    assert command(0x02, extended=True) == published
    assert parse(published) == b"\xd4\x02"
    assert Framer().feed(published) == [published]


def test_the_frames_that_say_one_thing():
    assert bytes.fromhex("0000FF00FF00") == ACK
    assert bytes.fromhex("0000FFFF0000") == NACK
    assert bytes.fromhex("0000FF01FF7F8100") == ERROR
    assert parse(ERROR) == b"\x7f"
    assert Framer().feed(ACK + NACK + ERROR) == [ACK, NACK, ERROR]


def test_waking_up_as_libnfc_and_as_waveshare_do():
    libnfc = bytes.fromhex("5555" + "00" * 14 + "0000FF03FDD414011700")
    waveshare = bytes.fromhex("5555" + "00" * 13 + "00FF03FDD414011700")
    assert libnfc == WAKE_UP + SAM
    for woken in (libnfc, waveshare):
        framer = Framer()
        assert framer.feed(woken) == [SAM]
        assert framer.dropped == 2
    reply = bytes.fromhex("0000FF00FF00" + "0000FF02FED5151600")
    assert Framer().feed(reply) == [ACK, reply[6:]]


def test_a_reply_that_a_blog_prints_without_its_end_is_no_frame():
    cut = bytes.fromhex("0000FF03FDD54100")
    assert Framer().feed(cut) == []
    with pytest.raises(FramingError, match="8 bytes came that are no frame of a PN532") as caught:
        parse(cut)
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    "bent",
    [
        "0000FF02FDD4022A00",  # LCS
        "0000FF02FED4022B00",  # DCS
        "0000FFFFFF0002FDD4022A00",
        "0000FFFFFF0002FED4022B00",
        "0000FFFFFF010AF5" + "D4" * 266 + "0000",  # longer than there is
        "0000FF0000",
        "0000FF02FED4022A",
        "0000FF02FED4022A0000",
        "",
    ],
)
def test_what_is_no_frame_is_a_framing_error(bent):
    with pytest.raises(FramingError):
        parse(bytes.fromhex(bent))


@pytest.mark.parametrize("size", [0, 266])
def test_what_no_frame_holds(size):
    with pytest.raises(FramingError, match=f"1 to 265 bytes, not {size}"):
        build(bytes(size))


def test_cards_as_the_chip_tells_them():
    plain = parse_targets(TYPE_A, bytes.fromhex("010100040804FB0EE20B"))
    assert [(one.number, one.uid.hex(), one.answer) for one in plain] == [(1, "fb0ee20b", b"")]
    chip = parse_targets(TYPE_A, bytes.fromhex("010100042004080102030578807000"))
    assert [(one.uid.hex(), one.answer.hex()) for one in chip] == [("08010203", "0578807000")]
    b = parse_targets(TYPE_B, bytes.fromhex("0101 50 11223344 00000000 008171 01 00"))
    assert [(one.uid.hex(), one.answer.hex()) for one in b] == [("11223344", "501122334400000000008171")]
    assert parse_targets(TYPE_A, b"\0") == ()


@given(st.sampled_from(sorted(FORMS)), st.binary(max_size=60))
def test_any_list_of_cards_is_one_or_a_protocol_error(kind, data):
    with suppress(ProtocolError):
        assert len(parse_targets(kind, data)) <= 2


payloads = st.builds(
    lambda sender, rest: bytes((sender,)) + rest, st.sampled_from([0xD4, 0xD5]), st.binary(min_size=1, max_size=264)
)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(places)]


def fed(framer: Framer, parts: list[bytes]) -> list[bytes]:
    found = []
    for part in parts:
        found += framer.feed(part)
        assert len(framer._held) <= FRAME_LIMIT
    return found


@given(payloads, st.booleans())
def test_a_payload_comes_back(payload, extended):
    frame = build(payload, extended=extended)
    assert parse(frame) == frames.payload(frame) == payload
    assert Framer().feed(frame) == [frame]


@given(
    st.lists(payloads.map(build) | st.sampled_from([ACK, NACK, ERROR]), max_size=6),
    st.lists(st.integers(0, 4000), max_size=20),
    st.integers(0, 20),
    st.booleans(),
)
def test_frames_are_found_however_they_are_split_and_padded(sent, cuts, zeros, no_amble):
    ends = slice(1, -1) if no_amble else slice(None)
    stream = b"".join(bytes(zeros) + frame[ends] for frame in sent)
    framer = Framer()
    assert fed(framer, pieces(stream, cuts)) == sent
    assert framer.dropped == 0


@given(payloads, st.integers(0, 300))
def test_a_byte_that_the_line_loses_is_never_another_payload(payload, place):
    frame = build(payload)
    place %= len(frame)
    framer = Framer()
    framer.ambled = True
    for found in framer.feed(frame[:place] + frame[place + 1 :]):
        assert found == BROKEN or parse(found) == payload or found[1:-1] in frame


def test_a_zero_that_the_line_loses_is_noticed_by_the_one_behind_the_frame():
    frame = answer(0x40, b"\0\x70\0\x90\0")
    short = frame[:9] + frame[10:]
    assert [len(parse(found)) for found in Framer().feed(short)] == [7]  # the DCS has become data
    framer = Framer()
    framer.ambled = True
    assert framer.feed(short) == []
    assert framer.begun
    framer.reset()
    assert framer.feed(frame) == [frame]


beginnings = [b"\0", b"\xff", b"\0\xff", b"\0\0\xff\x05\xfb", b"\0\xff\xff\xff\1\0\xff", b"\xd4", b"\xd5", b"\x7f"]
noise = st.binary(max_size=600) | st.lists(st.sampled_from(beginnings), max_size=60).map(b"".join)


@given(noise, st.lists(st.integers(0, 900), max_size=20), payloads)
def test_after_noise_and_a_fresh_start_the_next_frame_is_read(data, cuts, payload):
    framer = Framer()
    fed(framer, pieces(data, cuts))
    framer.reset()
    assert framer.feed(build(payload)) == [build(payload)]


@given(
    noise,
    st.lists(st.integers(0, 900), max_size=20),
    st.binary(max_size=30).filter(lambda data: b"\xff" not in data),
)
def test_noise_never_takes_more_than_it_claims(data, cuts, rest):
    good = build(b"\xd5\x41" + rest)
    framer = Framer()
    found = fed(framer, pieces(data, cuts)) + fed(framer, [good] * (FRAME_LIMIT // len(good) + 2))
    assert found[-1] == good


@given(payloads, st.integers(0, 300), st.integers(0, 7))
def test_a_bit_that_the_line_flips_is_never_another_payload(payload, place, bit):
    frame = build(payload)
    bent = bytearray(frame)
    bent[place % len(bent)] ^= 1 << bit
    for found in Framer().feed(bytes(bent)):
        assert found in (BROKEN, ACK, NACK, ERROR) or parse(found) == payload or found[1:-1] in frame


def test_a_bent_frame_is_told_and_what_is_in_it_is_not_lost():
    inner = answer(0x02, b"\x32\x01\x06\x07")
    outer = bytearray(build(b"\xd5\x41" + inner))
    assert Framer().feed(bytes(outer)) == [bytes(outer)]
    outer[6] ^= 1
    assert Framer().feed(bytes(outer)) == [BROKEN, inner]


TRACK2 = bytes.fromhex("571347617390010101 19D28122011000012300000F 9000".replace(" ", ""))


def test_card_data_is_masked_and_the_frame_still_is_one():
    spoken = language()
    read = answer(0x40, b"\0\x70\x15" + TRACK2)
    masked = spoken.masked(read)
    assert parse(masked)[3:].hex() == "7015571347617300000101 19d28122010000000000000f9000".replace(" ", "")
    assert "4761" not in spoken.describe(read)
    raw = answer(0x42, b"\0\x02\x70\x15" + TRACK2)
    assert parse(spoken.masked(raw))[4:] == parse(masked)[3:]
    pin = command(0x40, b"\1" + bytes.fromhex("0020008008241234FFFFFFFFFF"))
    assert parse(spoken.masked(pin)).hex() == "d44001002000800800" + "00" * 7
    assert spoken.masked(WAKE_UP + SAM) == WAKE_UP + SAM
    assert spoken.masked(ACK) == ACK


def test_what_goes_on_over_frames_is_blanked_to_its_end():
    spoken = language()
    data = b"\x70\x15" + TRACK2
    first, second, third = (
        answer(0x40, part) for part in (b"\x40" + data[:6], b"\x40" + data[6:12], b"\0" + data[12:])
    )
    assert [parse(spoken.masked(one))[3:].strip(b"\0") for one in (first, second, third)] == [b"", b"", b""]
    whole = answer(0x40, b"\0\x6f\0\x90\0")
    assert spoken.masked(whole) == whole
    chained = answer(0x42, b"\0\x12" + data[:6]), answer(0x42, b"\0\x03" + data[6:])
    assert [parse(spoken.masked(one))[4:].strip(b"\0") for one in chained] == [b"", b""]


def test_a_card_that_asks_for_time_between_the_pieces_of_its_answer_shows_nothing_of_the_rest():
    """Its last piece would be read as objects: the number's first two digits a tag, the next two its length."""
    track = bytes.fromhex("4111111111111111D28122011234567890123F")
    first, wait, last = (
        answer(0x42, block) for block in (b"\0\x12\x57\x13", b"\0\xf2\1", b"\0\x03" + track + b"\x90\0")
    )
    spoken = language()
    assert [parse(spoken.masked(one))[4:].strip(b"\0") for one in (first, wait, last)] == [b"", b"", b""]


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("empty", [False, True])
def test_a_card_that_says_where_the_rest_of_its_answer_is_shows_nothing_of_it(raw, empty):
    """As behind the other readers: 61xx, and GET RESPONSE. The last piece would be read as objects here too."""
    track = bytes.fromhex("4111111111111111D28122011234567890123F")

    def asked(apdu):
        return command(0x42, b"\2" + apdu) if raw else command(0x40, b"\1" + apdu)

    def said(apdu):
        return answer(0x42, b"\0\2" + apdu) if raw else answer(0x40, b"\0" + apdu)

    read, rest = bytes.fromhex("00B2010C00"), bytes.fromhex("00C0000013")
    says = [asked(read), said(b"\x57\x13\x61\x13"), asked(rest)]
    says += [said(b"\x61\x13"), asked(rest)] if empty else []
    says += [said(track + b"\x90\0"), asked(read), said(b"\x70\0\x90\0")]
    spoken = language()
    shown = [parse(spoken.masked(one))[4 if raw else 3 :] for one in says]
    assert shown[1] == b"\0\0\x61\x13"
    assert shown[-3] == bytes(19) + b"\x90\0"
    assert shown[-1] == b"\x70\0\x90\0"


def test_where_the_rest_of_an_answer_is_may_be_said_in_two_frames():
    track = bytes.fromhex("4111111111111111D28122011234567890123F")
    says = [
        command(0x40, b"\1" + bytes.fromhex("00B2010C00")),
        answer(0x40, b"\x40\x57\x13\x61"),
        command(0x40, b"\1"),
        answer(0x40, b"\0\x13"),
        command(0x40, b"\1" + bytes.fromhex("00C0000013")),
        answer(0x40, b"\0" + track + b"\x90\0"),
    ]
    spoken = language()
    assert [parse(spoken.masked(one))[3:] for one in says][-1] == bytes(19) + b"\x90\0"


@given(st.lists(st.binary(max_size=80) | payloads.map(build), max_size=5))
def test_telling_and_masking_never_fail_and_keep_the_size(some):
    spoken = language()
    for frame in some:
        assert isinstance(spoken.describe(frame), str)
        assert len(spoken.masked(frame)) == len(frame)


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (ACK, "ACK"),
        (NACK, "NACK"),
        (ERROR, "syntax error"),
        (BROKEN, "a frame with a wrong checksum"),
        (WAKE_UP + SAM, "wake up, SAMConfiguration: 01"),
        (command(0x02), "GetFirmwareVersion"),
        (answer(0x02, b"\x32\1\6\7"), "GetFirmwareVersion answered: 32 01 06 07"),
        (command(0x40, b"\1" + PPSE), "InDataExchange: SELECT 00 A4 04 00, 14 bytes"),
        (answer(0x40, b"\0" + FCI), "InDataExchange answered: SW 9000, 46 bytes"),
        (answer(0x40, b"\x40" + FCI), "InDataExchange answered: 48 bytes, more to come"),
        (answer(0x40, b"\1"), "InDataExchange: timeout, the target has not answered"),
        (command(0x98), "command 98"),
        (b"\1\2", "2 bytes that are no frame"),
    ],
)  # fmt: skip
def test_what_a_trace_says(frame, said):
    assert language().describe(frame) == said
