"""What ViVOpay readers say of cards: their data objects, their swipes, and the cards in them."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hw import tlv as ber
from hw import vivopay_msr as msr
from hw.card import EntryMode, ResultCard, SealedCard, StripeCard
from hw.errors import CardError, ProtocolError
from hw.vivopay_frames import Message, build_answer, build_command, build_event, parse
from hw.vivopay_result import GO_ONLINE, Result, Source, activation, card_of, contact, was_inserted
from hw.vivopay_tlv import ERROR, KSN, MSR, Cover, Item, encode, holds_others, is_own, spans, walk
from hw.vivopay_tlv import parse as parse_items
from hw.vivopay_trace import describe, language, masked

TRACK2 = bytes.fromhex("4761739001010119D28122011000001230000F")
CLEAR = encode((Item(0x50, b"VISA"), Item(0x57, TRACK2), Item(0x9F39, b"\7")))
# As readers of the family print it, digits of a published test card: masked with C, then ciphertext.
SEALED = bytes.fromhex(
    "C1 DFEE12 0A FFFF9876543210E00001 50 04 56495341"
    "57 A1 13 4761CCCCCCCC0119D2812201CCCCCCCCCCCCCC 57 C1 18 000102030405060708090A0B0C0D0E0F1011121314151617"
    "5A A1 08 4761CCCCCCCC0119 5A C1 10 000102030405060708090A0B0C0D0E0F 9F39 01 07 DFEE26 02 C100"
)


def test_the_tags_that_are_no_ber() -> None:
    data = bytes.fromhex(
        "FFEE1F 04 24000001  FFE4 01 8E  E300 08 0102030405060708  FFF7 01 01  DF8129 01 00  57 00"
    )
    found = spans(data)
    assert [one.tag for one in found] == [ERROR, 0xFFE4, 0xE300, 0xFFF7, 0xDF8129, 0x57]
    assert [holds_others(one.tag) for one in found] == [False] * 6
    assert [is_own(one.tag) for one in found] == [True, True, True, True, False, False]
    assert encode(parse_items(data)) == data


def test_groups_hold_others_where_their_tag_is_one_of_few() -> None:
    data = bytes.fromhex("9F0201009F030100FFEE080ADFEF1A010ADFED280103")  # of the published activation
    assert [item.tag for item in walk(parse_items(data))] == [0x9F02, 0x9F03, 0xFFEE08, 0xDFEF1A, 0xDFED28]


def test_lengths_say_what_was_done_to_a_value() -> None:
    items = parse_items(SEALED[1:])
    assert [(item.tag, item.cover) for item in items if item.cover is not Cover.CLEAR] == [
        (0x57, Cover.MASKED),
        (0x57, Cover.SEALED),
        (0x5A, Cover.MASKED),
        (0x5A, Cover.SEALED),
    ]
    assert encode(items) == SEALED[1:]


@given(
    items=st.lists(
        st.builds(
            Item,
            st.sampled_from([0x57, 0x9F02, 0xDFEE12, 0xFFEE1F, 0xFFE4, 0xE300, 0xFF8105, 0xDF812A]),
            st.binary(max_size=300),
            st.sampled_from(Cover),
        ),
        max_size=6,
    ).map(tuple)
)
def test_objects_are_read_as_they_were_written(items: tuple[Item, ...]) -> None:
    assert parse_items(encode(items)) == items


@given(
    data=st.binary(max_size=60)
    | st.binary(max_size=60).map(lambda rest: b"\xff\xee\x01" + rest)
    | st.lists(st.sampled_from([b"\xe3", b"\xff", b"\xe0", b"\xdf", b"\xee", b"\x01", b"\xc1"]), max_size=6).map(
        b"".join
    )
)
@example(data=b"\xe3")
@example(data=b"\x9c\x01\x00\xe3")
def test_any_bytes_are_objects_or_a_protocol_error(data: bytes) -> None:
    with suppress(ProtocolError):
        list(walk(parse_items(data)))


def result(status: int, attribution: int, data: bytes) -> Result:
    return activation(Message(0x02, status, bytes((attribution,)) + data))


@pytest.mark.parametrize(
    ("attribution", "source", "mode"),
    [
        (0x00, Source.CONTACT, EntryMode.CHIP),
        (0x01, Source.CONTACTLESS, EntryMode.CONTACTLESS),
        (0x11, Source.MSD, EntryMode.CONTACTLESS),
    ],
)
def test_a_card_in_the_clear(attribution: int, source: Source, mode: EntryMode) -> None:
    told = result(0x23, attribution, CLEAR)
    assert told.source is source
    assert told.goes_online
    card = card_of(told)
    assert isinstance(card, ResultCard)
    assert (card.pan, card.expiry, card.entry_mode) == ("4761739001010119", "2812", mode)
    assert card.track2_equivalent() == TRACK2
    assert [one.tag for one in ber.parse(card.tags)] == [0x50, 0x9F39]
    assert repr(card) == "ResultCard(476173******0119)"


def test_a_card_that_the_reader_has_encrypted() -> None:
    card = card_of(activation(Message(0x02, 0x23, SEALED)))
    assert card == SealedCard(
        scheme="dukpt-tdes",
        ksn=bytes.fromhex("FFFF9876543210E00001"),
        data=bytes(range(24)),
        masked_pan="4761********0119",
        expiry="2812",
        entry_mode=EntryMode.CONTACTLESS,
        tags=bytes.fromhex("5004564953419F390107"),
    )
    aes = card_of(activation(Message(0x02, 0x23, b"\xc3" + SEALED[1:])))
    assert isinstance(aes, SealedCard)
    assert aes.scheme == "dukpt-aes"
    with pytest.raises(ProtocolError, match="neither TDES nor AES"):
        card_of(activation(Message(0x02, 0x23, b"\xc5" + SEALED[1:])))
    with pytest.raises(ProtocolError, match="without the serial number of its key"):
        card_of(activation(Message(0x02, 0x23, b"\xc1" + SEALED[15:])))


def test_track_data_inside_a_group_do_not_go_along_as_tags() -> None:
    group = Item(0xFF8105, encode((Item(0x9F6B, TRACK2), Item(0x5A, TRACK2[:8]), Item(0x9F36, b"\0\1"))))
    card = card_of(result(0x00, 0x01, encode((Item(0x57, TRACK2), group))))
    assert isinstance(card, ResultCard)
    assert card.tags == Item(0xFF8105, Item(0x9F36, b"\0\1").encode()).encode()


def test_a_stripe_in_ascii_without_a_chip() -> None:
    tracks = encode(
        (Item(0xDFEF17, b"%B4761739001010119^DOE/J^28122011000?"), Item(0xFFEE14, b"4761739001010119=2812201"))
    )
    told = card_of(result(0x00, 0x11, tracks))
    assert isinstance(told, ResultCard)
    assert (told.entry_mode, told.pan) == (EntryMode.CONTACTLESS, "4761739001010119")
    swiped = card_of(result(0x00, 0x08, tracks))
    assert isinstance(swiped, StripeCard)
    assert swiped.name == "DOE/J"


@pytest.mark.parametrize(("attribution", "again"), [(0x11, "Present the card"), (0x08, "Swipe the card")])
def test_what_cannot_be_read_of_it_is_presented_again_as_it_was(attribution: int, again: str) -> None:
    """11: a tap, 08: a swipe."""
    with pytest.raises(CardError, match="not laid out") as caught:
        card_of(result(0x00, attribution, Item(0xFFEE14, b"4761739001010119=28").encode()))
    assert again in caught.value.advice


T1, T2 = b"%B4761739001010119^DOE/JOHN^28122011000?", b";4761739001010119=28122011000?"
H1, H2 = b"%*4761********0119^DOE/JOHN^2812*******?", b";4761********0119=2812*******?"


def test_a_swipe_in_the_clear() -> None:
    value = msr.build(msr.Swipe({1: T1, 2: T2}))
    assert value[:3] == b"\2" + (7 + len(T1) + len(T2)).to_bytes(2, "little")
    assert value[3:10] == bytes((0x80, 0x1B, len(T1), len(T2), 0, 0x03, 0x00))
    card = card_of(result(0x00, 0x08, Item(MSR, value).encode()))
    assert isinstance(card, StripeCard)
    assert (card.track1, card.track2) == (T1[1:-1].decode(), T2[1:-1].decode())


@pytest.mark.parametrize(("scheme", "block"), [("dukpt-tdes", 8), ("dukpt-aes", 16)])
def test_a_swipe_that_the_reader_has_encrypted(scheme, block) -> None:
    sealed = {track: bytes(range(-(-len(text) // block) * block)) for track, text in ((1, T1), (2, T2))}
    swipe = msr.Swipe({1: H1, 2: H2}, sealed, bytes(range(10)), scheme)
    assert msr.parse(msr.build(swipe)) == swipe
    card = card_of(result(0x00, 0xC8, Item(MSR, msr.build(swipe)).encode()))
    assert card == SealedCard(
        scheme=scheme,
        ksn=bytes(range(10)),
        data=sealed[2],
        masked_pan="4761********0119",
        expiry="2812",
        entry_mode=EntryMode.SWIPE,
    )


@pytest.mark.parametrize(
    ("objects", "pan", "expiry"),
    [
        ("57C108 0011223344556677  5AA108 4761CCCCCCCC0119  5F2403 281231", "4761********0119", "2812"),
        ("57C108 0011223344556677  5AA108 47617390CCCC0119", "476173******0119", ""),
        ("57C108 0011223344556677  5AA108 4761739001010119", "476173******0119", ""),  # it forgot to mask
        ("57C108 0011223344556677", "**", ""),
    ],
)
def test_what_is_shown_of_an_encrypted_card(objects: str, pan: str, expiry: str) -> None:
    data = bytes.fromhex("C1 DFEE120A FFFF9876543210E00001" + objects)
    card = card_of(activation(Message(0x02, 0x00, data)))
    assert isinstance(card, SealedCard)
    assert (card.masked_pan, card.expiry) == (pan, expiry)


def test_what_is_shown_of_an_encrypted_swipe() -> None:
    for shown, pan in (({1: H1}, "4761********0119"), ({}, "**")):
        swipe = msr.Swipe(shown, {1: bytes(40)}, bytes(range(10)))
        value = msr.build(swipe, {1: len(T1)})
        card = card_of(result(0x00, 0xC8, Item(MSR, value).encode()))
        assert isinstance(card, SealedCard)
        assert (card.masked_pan, card.data) == (pan, bytes(40))


def test_a_swipe_without_its_key_s_number_or_its_check_is_refused() -> None:
    swipe = msr.Swipe({2: H2}, {2: bytes(32)})
    with pytest.raises(ProtocolError, match="without the serial number"):
        card_of(result(0x00, 0xC8, Item(MSR, msr.build(swipe)).encode()))
    bent = bytearray(msr.build(swipe))
    bent[20] ^= 1
    for value in (bytes(bent), b"", b"\2\0\0\0\0\3", bytes(bent)[:-1]):
        with pytest.raises(ProtocolError, match="a swipe of"):
            card_of(result(0x00, 0x08, Item(MSR, value).encode()))


@given(value=st.binary(max_size=80) | st.binary(max_size=80).map(lambda rest: b"\2\x07\0" + rest))
def test_any_bytes_are_a_swipe_or_a_protocol_error(value: bytes) -> None:
    with suppress(ProtocolError):
        msr.parse(value)


@pytest.mark.parametrize(
    ("status", "data", "why", "advice"),
    [
        (0x0A, "01 FFEE1F 04 21000000", "more than one card", "Present one card only"),
        (0x0A, "01 FFEE1F 04 30000005", "did not answer", "leave it until it is done"),
        (0x0A, "01 FFEE1F 04 99000005", r"error 99h", "another card"),
        (0x0A, "", r"failed \(0Ah\)", ""),
        (0x00, "01", "told nothing of the card", ""),
        (0x30, "00", r"status \(30h\)", ""),
        (0xE7, "", r"status \(E7h\)", ""),
    ],
)
def test_cards_that_did_not_work_say_why(status: int, data: str, why: str, advice: str) -> None:
    told = activation(Message(0x02, status, bytes.fromhex(data)))
    assert told.status == status
    with pytest.raises(CardError, match=why) as caught:
        card_of(told)
    assert advice in caught.value.advice


def test_a_card_under_a_status_that_nobody_knows_is_a_card() -> None:
    assert card_of(result(0x30, 0x00, CLEAR)).masked_pan == "476173******0119"


@pytest.mark.parametrize(
    ("status", "error"), [(0x24, b""), (0x23, b""), (0x0A, Item(ERROR, b"\x23\0\0\0").encode())]
)
def test_a_card_that_was_read_is_one_however_the_reader_says_it(status: int, error: bytes) -> None:
    told = result(status, 0x01, error + CLEAR)
    assert told.goes_online == (status != 0x24)
    assert card_of(told).masked_pan == "476173******0119"


def test_a_card_that_wants_to_go_online_and_tells_nothing_is_refused() -> None:
    with pytest.raises(CardError, match="wants to go online"):
        card_of(result(0x0A, 0x01, Item(ERROR, b"\x23\0\0\0").encode()))


def test_a_card_that_came_in_a_way_that_nobody_knows_is_none() -> None:
    with pytest.raises(ProtocolError, match="attribution 10h"):
        card_of(result(0x00, 0x10, CLEAR))


@pytest.mark.parametrize(
    ("told", "inserted"),
    [
        (result(0x23, 0x00, CLEAR), True),
        (result(0x0A, 0x00, b""), True),
        (result(0x23, 0x01, CLEAR), False),
        (result(0x23, 0x10, CLEAR), False),  # in a way that nobody knows
        (activation(Message(0x02, 0x0A)), False),
        (contact(Message(0x60, 0x00, b"\0\0" + CLEAR)), True),
        (contact(Message(0x60, 0x00, b"\0\0" + Item(MSR, b"").encode())), False),
        (activation(Message(0x02, 0x00, b"\0" + Item(0xE1, b"\x57\x13").encode())), False),  # nonsense
    ],
)
def test_whether_a_card_stuck_in_the_slot(told: Result, inserted: bool) -> None:
    assert was_inserted(told) is inserted


def test_contact_results() -> None:
    assert contact(Message(0x60, 0x08)) == Result(0x08)
    told = contact(Message(0x60, 0x00, b"\0\4" + SEALED[1:]))
    assert (told.code, told.attribution, told.goes_online) == (GO_ONLINE, 0xC1, True)
    assert told.find((KSN,)) == bytes.fromhex("FFFF9876543210E00001")


@given(
    status=st.integers(0, 255),
    data=st.binary(max_size=80) | st.just(CLEAR) | st.just(SEALED),
    cut=st.integers(0, 90),
)
def test_any_answer_is_a_card_or_a_typed_error(status: int, data: bytes, cut: int) -> None:
    for read in (activation, contact):
        with suppress(ProtocolError, CardError):
            card_of(read(Message(0x02, status, data[:cut])))


CANARY = (b"4761739001010119", bytes.fromhex("4761739001010119"), b"DOE", b"1000001230000", TRACK2[8:])


@pytest.mark.parametrize("command", [0x02, 0x03, 0x60])
@pytest.mark.parametrize(
    "objects",
    [
        CLEAR,
        Item(0xE1, CLEAR + Item(0x5F20, b"DOE/JOHN").encode()).encode(),
        Item(0xFFEE01, Item(0xDFEF17, T1).encode() + Item(0x5A, TRACK2[:8]).encode()).encode(),
        Item(MSR, msr.build(msr.Swipe({1: T1, 2: T2}))).encode(),
        Item(0xDFEF18, b"4761739001010119=28122011000001230000").encode(),
        Item(0xDF812B, b"1000001230000").encode() + Item(0x57, TRACK2).encode(),
        Item(0x99AB, b"").encode() + b"4761739001010119 and no object",
    ],
)
def test_no_trace_shows_a_card(command: int, objects: bytes) -> None:
    prefix = b"\0\4" if command == 0x60 else b"\1"
    for data in (prefix + objects, objects):
        hidden = masked(build_answer(command, 0x00, data))
        assert [secret for secret in CANARY if secret in hidden] == []
        assert len(hidden) == len(build_answer(command, 0x00, data))


NUMBER = b"4761739001010119"
NAMED = b"B4761739001010119^DOE/JOHN^28122011000001230000"


@pytest.mark.parametrize(
    "item",
    [
        Item(0xDFEF17, b"%" + NAMED),  # broken off
        Item(0xFFEE13, NAMED),  # without sentinels
        Item(0xDFEF4D, b"%" + NAMED + b"?;" + NUMBER + b"=2812201?"),  # the maker's own, that nobody told us of
        Item(0xDFEF4D, bytes(4) + TRACK2),
        Item(0x57, TRACK2, Cover.MASKED),  # said to be masked
        Item(0x5A, TRACK2[:8], Cover.MASKED),
        Item(0x5A, bytes.fromhex("476173900101CC19"), Cover.MASKED),  # not enough of it
        Item(0x57, bytes.fromhex("4761CCCCCCCC0119D28122011000001230000F"), Cover.MASKED),
        Item(0x5F20, b"DOE/JOHN", Cover.MASKED),
        Item(0x5F22, NUMBER + b"=2812201"),
        Item(0x58, b"01" + NUMBER),
        Item(MSR, msr.build(msr.Swipe({1: b"%" + NAMED, 2: b";4761739\x801010119=2812"}))),
    ],
)
def test_nor_does_a_reader_s_nonsense(item: Item) -> None:
    for sent in (build_answer(0x02, 0x23, b"\1" + item.encode()), build_command(0x04, 0x00, item.encode())):
        hidden = masked(sent)
        assert [secret for secret in (*CANARY, b"4761739", b"DOE", b"11000001230000") if secret in hidden] == []
        assert bytes.fromhex("4761739001") not in hidden
        assert bytes.fromhex("1000001230") not in hidden
        assert len(hidden) == len(sent)


@pytest.mark.parametrize("command", sorted({0x06, 0x2C, 0x33, 0x60, 0x62, 0x81, 0x90, 0xC7, 0x09, 0x29, 0x61}))
@pytest.mark.parametrize("status", [0x00, 0x01, 0x13, 0x23])
def test_an_answer_that_nobody_expects_shows_nothing(command: int, status: int) -> None:
    for data in (
        TRACK2,
        b"\0" + CLEAR,
        b"\3\xff" + TRACK2[:8] + b"\x90\0",
        bytes.fromhex("3B5A08") + TRACK2[:8] + b"\x90\0",  # which is no answer to reset
        b"\1" + Item(0x5A, bytes.fromhex("123456789015")).encode(),
    ):
        hidden = masked(build_answer(command, status, data))
        assert TRACK2[:8] not in hidden
        assert bytes.fromhex("123456789015") not in hidden


@pytest.mark.parametrize("data", [TRACK2, NUMBER, b"\1" + TRACK2[:7], b"DOE/JOHN"])
def test_an_event_that_is_none_shows_nothing(data: bytes) -> None:
    sent = build_event(data)
    assert masked(sent) == build_event(bytes(len(data)))
    assert describe(sent) == f"burst event {bytes(len(data)).hex(' ')}"


def test_a_short_number_in_few_bytes_is_a_number() -> None:
    hidden = masked(build_command(0x04, 0x00, Item(0x5A, bytes.fromhex("123456789015")).encode()))
    assert bytes.fromhex("123456") not in hidden


def test_what_is_masked_still_reads_as_a_card() -> None:
    swipes = (msr.Swipe({1: T1, 2: T2}), msr.Swipe({1: H1, 2: H2}, {2: bytes(32)}, bytes(range(10))))
    for data in (b"\1" + CLEAR, SEALED, *(b"\x08" + Item(MSR, msr.build(swipe)).encode() for swipe in swipes)):
        said = parse(masked(build_answer(0x02, 0x23, data)))
        assert isinstance(said, Message)
        before, after = (card_of(activation(message)) for message in (Message(0x02, 0x23, data), said))
        assert type(after) is type(before)
        assert (after.masked_pan[-4:], after.expiry) == (before.masked_pan[-4:], before.expiry)
        if isinstance(after, SealedCard):
            assert after.masked_pan == before.masked_pan
            assert not any(after.data)


@pytest.mark.parametrize(
    ("code", "data", "kept"),
    [
        (0x00, "01 04A1B2C3", True),  # a contactless card and its number
        (0x00, "3B E0 00 00 81 31 FE 45 EB", True),
        (0x13, "00 00A4040007A0000000031010 00", True),
        (0x13, "20 0020008008 241234FFFFFFFFFF", False),  # a PIN
        (0x00, "70 0A 5A 08 4761739001010119 9000", False),
    ],
)
def test_what_is_passed_through_is_masked_as_for_any_reader(code: int, data: str, kept: bool) -> None:
    sent = build_answer(0x2C, code, bytes.fromhex(data))
    assert (masked(sent) == sent) == kept
    assert bytes.fromhex("241234") not in masked(sent)
    assert bytes.fromhex("4761739001010119") not in masked(sent)


@pytest.mark.parametrize("size", range(1, len(TRACK2)))
def test_an_answer_in_pieces_shows_nothing_and_the_next_one_does(size: int) -> None:
    record = b"\x70\x15\x57\x13" + TRACK2
    pieces = [record[at : at + size] for at in range(0, len(record), size)]
    line, seen = language(), []
    for piece in pieces:
        line.masked(build_command(0x2C, 0x13, b"\x20\0\xc0\0\0\0"))
        more = b"\x61\x05" if piece is not pieces[-1] else b"\x90\0"
        said = parse(line.masked(build_answer(0x2C, 0, piece + more)))
        assert isinstance(said, Message)
        assert said.data == bytes(len(piece)) + more
    for sent in (build_command(0x2C, 0x13, b"\x20\0\xb2\1\x0c\0"), build_answer(0x2C, 0, record + b"\x90\0")):
        seen.append(line.masked(sent))
    assert seen[-1] == masked(build_answer(0x2C, 0, record + b"\x90\0"))
    assert bytes.fromhex("476173") in seen[-1]


@pytest.mark.parametrize("between", [(4, b""), (0, b"\x61\x13")], ids=["refused by its CRC", "a piece of nothing"])
def test_the_last_piece_of_an_answer_may_look_whole(between: tuple[int, bytes]) -> None:
    """Its first two digits would be a tag, and the next two its length."""
    rest = build_command(0x2C, 0x13, b"\x20\0\xc0\0\0\x13")
    track = bytes.fromhex("4111111111111111D28122011234567890123F")
    says = [build_answer(0x2C, 0, b"\x57\x13\x61\x13"), rest, build_answer(0x2C, *between), rest]
    line = language()
    for sent in says:
        line.masked(sent)
    last = parse(line.masked(build_answer(0x2C, 0, track + b"\x90\0")))
    assert isinstance(last, Message)
    assert last.data == bytes(19) + b"\x90\0"


def test_a_card_s_number_and_its_answer_to_reset_are_no_pieces() -> None:
    line = language()
    for data in ("01 04A161C3", "3B650000616361 6861", "3B E0 00 00 81 31 FE 45 EB"):
        sent = build_answer(0x2C, 0, bytes.fromhex(data))
        assert line.masked(sent) == sent


def test_a_pin_pad_says_nothing_in_a_trace() -> None:
    sent = build_answer(0x62, 0x00, b"\0" + bytes(range(1, 20)))
    said = parse(masked(sent))
    assert isinstance(said, Message)
    assert not any(said.data)
