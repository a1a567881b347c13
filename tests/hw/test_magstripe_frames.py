"""Frames of stripe readers, from the bytes that their manuals print to any bytes at all. No line, no loop."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise, product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hw.card import StripeCard
from hw.errors import CardError, FramingError
from hw.magstripe import FRAMES, MAX_MESSAGE, Framer, parse
from hw.stripe import TRACK_1, TRACK_2, TRACK_3, lrc

STX, ETX, CR, DLE, ESC = b"\x02", b"\x03", b"\r", b"\x10", b"\x1b"

T1 = b"B4761739001010119^DOE/JOHN^28122011000"
T2 = b"4761739001010119=28122011000"
T3 = b"014761739001010119=="
L1, L2, L3 = (lrc(track, data.decode()).encode() for track, data in ((TRACK_1, T1), (TRACK_2, T2), (TRACK_3, T3)))

# Written out from the manuals, not built by our definitions.
SWIPES = {
    # MagTek Port Powered manual 99875094, section 3, "Reader to Host formats"
    "magtek, everything": STX + ESC + b"%" + T1 + b"?;" + T2 + b"?+" + T3 + b"?0" + CR + ETX,
    "magtek, as it comes out of the box": b"%" + T1 + b"?;" + T2 + b"?0",
    "magtek, card still in": STX + ESC + b"%" + T1 + b"?;" + T2 + b"?1" + CR + ETX,
    # MagTek MT-211232 manual, figure 3-2
    "magtek swipe, STX CR ETX": STX + b"%" + T1 + b"?;" + T2 + b"?+" + T3 + b"?" + CR + ETX,
    "magtek swipe, CR": b"%" + T1 + b"?;" + T2 + b"?" + CR,
    "magtek swipe, nothing around": b";" + T2 + b"?",
    # the same manual's bad read: STX ESC % E ? ; Track 2 Data ? 0 CR ETX
    "magtek, track 1 unreadable": STX + ESC + b"%E?;" + T2 + b"?0" + CR + ETX,
    # ID TECH MiniMag RS-232 manual, "Output Format Selection"
    "idtech": b"%" + T1 + b"?" + CR + b";" + T2 + b"?" + CR + b";" + T3 + b"?" + CR,
    "idtech, two tracks": b"%" + T1 + b"?" + CR + b";" + T2 + b"?" + CR,
    "idtech, one track": b";" + T2 + b"?" + CR,
    "idtech, LRC sent": b"%" + T1 + b"?" + L1 + CR + b";" + T2 + b"?" + L2 + CR,
    # the same page, "UIC RS-232 Format"
    "uic of a minimag": STX + b"%" + T1 + b"?" + L1 + DLE + STX + b";" + T2 + b"?" + L2 + DLE + ETX,
    # UIC MSR112 programmer's manual UDN PM019, section 3
    "uic, three tracks": STX + b"%" + T1 + b"?" + DLE + b";" + T2 + b"?" + DLE + b";" + T3 + b"?" + ETX,
    "uic, LRC sent": STX + b"%" + T1 + b"?" + L1 + DLE + b";" + T2 + b"?" + L2 + ETX,
    "uic, one track": STX + b";" + T2 + b"?" + ETX,
    "uic, one track, LRC": STX + b";" + T2 + b"?" + L2 + ETX,
    "uic, track 1 unreadable": STX + b"%F?" + DLE + b";" + T2 + b"?" + DLE + b";N?" + ETX,
}
THE_CARD = ("4761739001010119", "2812", "201", T2.decode())


def essence(card: StripeCard) -> tuple[str, str, str, str]:
    return (card.pan, card.expiry, card.service_code, card.track2)


def messages_of(pieces: Sequence[bytes]) -> list[bytes]:
    """What a framer makes of these pieces, with silence after the last."""
    framer = Framer()
    found = [message for piece in pieces for message in framer.feed(piece)]
    return found + framer.quiet()


@pytest.mark.parametrize("swipe", SWIPES.values(), ids=SWIPES)
def test_the_swipes_of_the_manuals_are_read(swipe: bytes) -> None:
    assert messages_of([swipe]) == [swipe]
    card = parse(swipe)
    assert essence(card) == THE_CARD
    assert card.track3 == (T3.decode() if T3 in swipe else None)
    assert card.name == ("DOE/JOHN" if T1 in swipe else None)


@pytest.mark.parametrize(("name", "swipe"), SWIPES.items(), ids=SWIPES)
def test_they_are_read_by_their_maker_s_name_too(name: str, swipe: bytes) -> None:
    assert essence(parse(swipe, name.split()[0].strip(","))) == THE_CARD


@pytest.mark.parametrize("swipe", SWIPES.values(), ids=SWIPES)
def test_our_definition_builds_the_same_bytes(swipe: bytes) -> None:
    built = []
    for frame in FRAMES.values():
        try:
            parsed = frame.parse(swipe)
        except Exception:  # another maker's
            continue
        built.append(frame.build(parsed))
    assert built
    assert set(built) == {swipe}


@pytest.mark.parametrize("name", [name for name, swipe in SWIPES.items() if swipe.endswith(ETX)])
def test_an_etx_ends_a_message_at_once(name: str) -> None:
    swipe = SWIPES[name]
    framer = Framer()
    assert framer.feed(swipe[:-1]) == []
    assert framer.pending
    assert framer.feed(ETX) == [swipe]
    assert not framer.pending
    assert framer.quiet() == []


@pytest.mark.parametrize(
    "notice",
    [  # MagTek Port Powered manual, card in and card out; and the digit alone, without its frame
        b"\x02\x1b1\r\x03",
        b"\x02\x1b0\r\x03",
        b"1\r",
        b"0",
        b"\x02\x03",
        b"",
    ],
)
def test_a_card_that_goes_in_is_no_swipe_yet(notice: bytes) -> None:
    assert messages_of([notice]) == []
    whole = SWIPES["magtek, everything"]
    assert messages_of([notice + whole]) == [whole]


@pytest.mark.parametrize(
    ("swipe", "why"),
    [
        (b"%E?;E?0\r\x03", "track 2 could not be read"),
        (b"%" + T1 + b"?;E?\r", "track 2 could not be read"),
        (b"%" + T1 + b"?\r", "track 2 could not be read"),
        (b"\x02;N?\x03", "track 2 could not be read"),
        (b"%" + T1 + b"?;" + T2.replace(b"0119=", b"0118=") + b"?\r", "track 2: the card number fails its Luhn"),
        (b"%" + T1.replace(b"28122", b"28112") + b"?;" + T2 + b"?\r", "tracks 1 and 2 are not of the same card"),
        (b"%" + T1 + b"?\r;" + T2 + b"?" + bytes([L2[0] ^ 1]) + b"\r", "track 2 fails its LRC"),
        (STX + b"%" + T1 + b"?" + bytes([L1[0] ^ 1]) + DLE + b";" + T2 + b"?" + L2 + ETX, "track 1 fails its LRC"),
        (b";" + b"1" * 38 + b"?\r", "track 2 is longer than 40"),
        (b";" + T2[:5] + b"A" + T2[5:] + b"?\r", "track 2 holds a character"),
    ],
)
def test_a_swipe_that_went_wrong_is_a_card_error(swipe: bytes, why: str) -> None:
    assert messages_of([swipe]) == [swipe]
    with pytest.raises(CardError, match=why):
        parse(swipe)


@pytest.mark.parametrize(
    "message",
    [
        b"%" + T1 + b"?;" + T2,  # cut off
        b";" + T2 + b"?x\r",
        b";" + T2[:7] + b"\xff" + T2[8:] + b"?\r",  # a byte that the line bent
        b";" + T2[:7] + b"p" + T2[8:] + b"?\r",
        b"%" + T1 + b"?+" + T3 + b"?+" + T3 + b"?\r",  # twice the same track
        b"%?;?\r",
        b"",
    ],
)
def test_what_is_no_frame_is_a_framing_error(message: bytes) -> None:
    with pytest.raises(FramingError) as caught:
        parse(message)
    assert caught.value.__context__ is None  # construct's own error would carry the bytes


def test_named_uic_one_track_has_its_lrc_checked_where_it_looks_like_a_sensor() -> None:
    data = next(T2 + b"%d" % n for n in range(100) if lrc(TRACK_2, (T2 + b"%d" % n).decode()) == "0")
    good, bad = (STX + b";" + data + b"?" + check + ETX for check in (b"0", b"1"))
    assert essence(parse(good, "uic"))[0] == THE_CARD[0]
    assert essence(parse(bad))[0] == THE_CARD[0]  # which MagTek sends for a card that is still in
    with pytest.raises(CardError, match="LRC"):
        parse(bad, "uic")


@pytest.mark.parametrize("sentinel", [b"%", b";", b"+"])
def test_an_lrc_that_looks_like_a_start_sentinel_is_an_lrc(sentinel: bytes) -> None:
    tails = ["".join(pair) for pair in product("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", repeat=2)]
    for track, start, head in ((TRACK_1, b"%", T1), (TRACK_2, b";", T2)):
        if ord(sentinel) < track.base or ord(sentinel) >= track.base + (1 << track.data_bits):
            continue
        ends = tails if track is TRACK_1 else [tail for tail in tails if tail.isdigit()]
        data = next(head + end.encode() for end in ends if lrc(track, head.decode() + end) == sentinel.decode())
        if track is TRACK_1:
            swipe = STX + start + data + b"?" + sentinel + DLE + STX + b";" + T2 + b"?" + L2 + DLE + ETX
        else:
            swipe = STX + b"%" + T1 + b"?" + L1 + DLE + start + data + b"?" + sentinel + ETX
        assert messages_of([swipe]) == [swipe]
        assert parse(swipe).pan == THE_CARD[0]


def test_a_swipe_right_after_another_is_a_swipe_of_its_own() -> None:
    for swipe in SWIPES.values():
        if swipe[:1] in (b"%", STX) and not (swipe.endswith(DLE)):
            assert messages_of([swipe + swipe]) == [swipe, swipe]


def test_a_torn_swipe_does_not_spoil_the_next() -> None:
    for swipe in SWIPES.values():
        if swipe[:1] not in (b"%", STX):
            continue
        for cut in range(len(swipe)):
            found = messages_of([swipe[:cut] + swipe])
            assert essence(parse(found[-1])) == THE_CARD


swipes = st.sampled_from(list(SWIPES.values()))


def pieces(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    """The bytes, cut at these places."""
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(places)]


@given(swipe=swipes, cuts=st.lists(st.integers(0, 300), max_size=20))
def test_how_a_swipe_is_split_makes_no_difference(swipe: bytes, cuts: list[int]) -> None:
    assert messages_of(pieces(swipe, cuts)) == [swipe]


sentinels_and_such = st.sampled_from([bytes([code]) for code in b"%;+?\x02\x03\x10\x1b\r0=^BE19"])
garbage = st.binary(max_size=600) | st.lists(sentinels_and_such, max_size=400).map(b"".join)


@given(noise=garbage, swipe=swipes, cuts=st.lists(st.integers(0, 900), max_size=20))
def test_after_noise_and_silence_the_next_swipe_is_read(noise: bytes, swipe: bytes, cuts: list[int]) -> None:
    framer = Framer()
    for piece in pieces(noise, cuts):
        framer.feed(piece)
    framer.quiet()
    found = [message for piece in pieces(swipe, cuts) for message in framer.feed(piece)] + framer.quiet()
    assert found == [swipe]


@given(noise=garbage.map(lambda noise: noise.replace(b"?", b"").replace(b"\x10", b"")[:200]), swipe=swipes)
@example(noise=b"%B47617390", swipe=SWIPES["idtech, one track"])
def test_noise_right_before_a_swipe_is_dropped(noise: bytes, swipe: bytes) -> None:
    # A whole track in the noise, or a DLE that says more is to come, could be the swipe's own beginning; and a
    # message that noise has made too long takes its tail with it.
    found = messages_of([noise + swipe])
    assert essence(parse(found[-1])) == THE_CARD


@given(data=st.lists(garbage, max_size=6), make=st.sampled_from(["auto", *FRAMES]))
def test_only_typed_errors_come_out_and_nothing_piles_up(data: list[bytes], make: str) -> None:
    framer = Framer()
    found = []
    for piece in data:
        found += framer.feed(piece)
        assert len(framer._message) < MAX_MESSAGE
    found += framer.quiet()
    assert not framer.pending
    assert sum(map(len, found)) <= sum(map(len, data))
    for message in found:
        assert len(message) <= MAX_MESSAGE
        with suppress(CardError, FramingError):
            parse(message, make)


printable = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x5F), max_size=20).map(str.encode)
shaped = st.builds(
    lambda tracks, end: b"".join(map(b"".join, tracks)) + end,
    st.lists(
        st.tuples(st.sampled_from([b"%", b";", b"+"]), printable, st.just(b"?"), printable.map(lambda p: p[:1]))
    ),
    st.sampled_from([b"", b"\r", b"\x03"]),
)
"""Like a swipe, of any characters whatever."""


@given(message=st.binary(max_size=MAX_MESSAGE) | garbage | shaped, make=st.sampled_from(["auto", *FRAMES]))
@example(message=b"; @P?0\x03", make="uic")
def test_any_message_is_a_card_or_a_typed_error(message: bytes, make: str) -> None:
    with suppress(CardError, FramingError):
        parse(message, make)


@given(swipe=swipes, place=st.integers(0, 300), bit=st.integers(0, 7))
def test_a_bit_that_the_line_flips_is_never_another_card(swipe: bytes, place: int, bit: int) -> None:
    bent = bytearray(swipe)
    bent[place % len(bent)] ^= 1 << bit
    for message in messages_of([bytes(bent)]):
        try:
            card = parse(message)
        except (CardError, FramingError):
            continue
        assert card.pan == THE_CARD[0]


def test_a_flood_without_an_end_holds_no_more_than_one_message() -> None:
    framer = Framer()
    for flood in (b"%" + b"A" * 10_000, b"\x00" * 10_000, b"\x02" * 10_000, b"?" * 10_000, b"%;" * 5_000):
        for message in framer.feed(flood):
            assert len(message) == MAX_MESSAGE
            with pytest.raises(FramingError):
                parse(message)
        assert len(framer._message) < MAX_MESSAGE
