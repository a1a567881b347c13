"""The stripe: parity, LRC, characters, layouts."""

from __future__ import annotations

from contextlib import suppress
from functools import reduce
from operator import xor

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hw.errors import BadSwipe, CardError
from hw.stripe import TRACK_1, TRACK_2, TRACK_3, Track, check_data, check_lrc, lrc, play, read_card, record

TRACKS = (TRACK_1, TRACK_2, TRACK_3)

T1 = "B4761739001010119^DOE/JOHN^28122011000"
T2 = "4761739001010119=28122011000"


@pytest.mark.parametrize(
    ("track", "data", "character", "bits"),
    [
        (TRACK_1, "AT3", "<", 0x1C),  # MagTek TTL manual, page 8: the worked example
        (TRACK_2, "123", "4", 0x04),  # computed by hand from ISO/IEC 7811-2
        (TRACK_2, "4111111111111111=30121011000012300000", "=", 0x0D),  # likewise
    ],
)
def test_the_lrc_of_worked_examples(track: Track, data: str, character: str, bits: int) -> None:
    assert lrc(track, data) == character
    recorded = record(track, data)
    assert recorded[-1] & (1 << track.data_bits) - 1 == bits
    assert play(track, recorded) == data


def test_the_characters_of_track_1_carry_odd_parity() -> None:
    # % is data 05 (two ones, so the parity bit is set), A is 21, T is 34, 3 is 13, ? is 1F, < is 1C
    assert record(TRACK_1, "AT3") == bytes([0x45, 0x61, 0x34, 0x13, 0x1F, 0x1C])


def test_the_characters_of_track_2_carry_odd_parity() -> None:
    # ; is data B, 1 is 1, 2 is 2, 3 is 3 (two ones, so the parity bit is set), ? is F, 4 is 4
    assert record(TRACK_2, "123") == bytes([0x0B, 0x01, 0x02, 0x13, 0x1F, 0x04])


def data_of(track: Track) -> st.SearchStrategy[str]:
    return st.text(sorted(track.data), min_size=1, max_size=track.longest_data)


@given(track=st.sampled_from(TRACKS), data=st.data())
def test_what_is_recorded_plays_again(track: Track, data: st.DataObject) -> None:
    text = data.draw(data_of(track))
    recorded = record(track, text)
    assert play(track, recorded) == text
    assert all(byte.bit_count() % 2 == 1 for byte in recorded)
    assert len(recorded) <= track.longest
    assert reduce(xor, recorded) & track.mask == 0  # what an LRC is for: each column is even


@given(track=st.sampled_from(TRACKS), data=st.data())
def test_any_one_flipped_bit_is_a_parity_error(track: Track, data: st.DataObject) -> None:
    recorded = bytearray(record(track, data.draw(data_of(track))))
    recorded[data.draw(st.integers(0, len(recorded) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(CardError, match=f"track {track.number} has a parity error"):
        play(track, bytes(recorded))


@given(track=st.sampled_from(TRACKS), data=st.data())
def test_two_flipped_bits_of_one_character_are_found_as_well(track: Track, data: st.DataObject) -> None:
    recorded = bytearray(record(track, data.draw(data_of(track))))
    first, second = data.draw(st.permutations(range(track.data_bits)))[:2]
    recorded[data.draw(st.integers(0, len(recorded) - 1))] ^= 1 << first | 1 << second
    with pytest.raises(CardError, match=r"LRC|lost a sentinel"):
        play(track, bytes(recorded))


@given(track=st.sampled_from(TRACKS), recorded=st.binary(max_size=120))
def test_bits_of_any_kind_play_or_are_a_card_error(track: Track, recorded: bytes) -> None:
    try:
        text = play(track, recorded)
    except CardError:
        return
    assert record(track, text) == recorded


@pytest.mark.parametrize(
    ("track", "data", "why"),
    [
        (TRACK_1, "", "track 1 is empty"),
        (TRACK_1, "A" * 77, "track 1 is longer than 79"),
        (TRACK_2, "1" * 38, "track 2 is longer than 40"),
        (TRACK_3, "1" * 105, "track 3 is longer than 107"),
        (TRACK_1, "lower", "track 1 holds a character that it cannot"),
        (TRACK_1, "A;B", "track 1 holds"),
        (TRACK_1, "A%B", "track 1 holds"),
        (TRACK_2, "12A", "track 2 holds"),
        (TRACK_2, "12²", "track 2 holds"),
        (TRACK_3, "12;", "track 3 holds"),
    ],
)
def test_what_a_track_cannot_hold(track: Track, data: str, why: str) -> None:
    with pytest.raises(CardError, match=why):
        check_data(track, data)
    with pytest.raises(CardError, match=why):
        record(track, data)


def test_the_longest_tracks_are_held() -> None:
    for track, length in zip(TRACKS, (79, 40, 107), strict=True):
        assert len(record(track, "1" * track.longest_data)) == length


def test_an_lrc_is_right_or_a_card_error() -> None:
    check_lrc(TRACK_2, "123", "4")
    for wrong in ("5", "", "44", "<"):
        with pytest.raises(CardError, match="track 2 fails its LRC"):
            check_lrc(TRACK_2, "123", wrong)


@given(track=st.sampled_from(TRACKS), data=st.text(st.characters(max_codepoint=0x7F)), found=st.text(max_size=1))
@example(track=TRACK_2, data=" i", found="0")  # below the track's characters, and above them
def test_whatever_stands_on_a_track_its_lrc_is_a_character(track: Track, data: str, found: str) -> None:
    assert 0 <= ord(lrc(track, data)) - track.base <= track.mask
    with suppress(BadSwipe):
        check_lrc(track, data, found)
        assert found == lrc(track, data)


def test_a_card_of_both_tracks() -> None:
    card = read_card(T1, T2, "01=")
    assert (card.pan, card.expiry, card.service_code, card.name) == ("4761739001010119", "2812", "201", "DOE/JOHN")
    assert (card.track1, card.track2, card.track3) == (T1, T2, "01=")


def test_a_card_of_track_2_alone_pays_too() -> None:
    card = read_card(None, T2, None)
    assert (card.pan, card.name, card.track1, card.track3) == ("4761739001010119", None, None, None)


def test_the_name_loses_its_padding_and_keeps_its_apostrophe() -> None:
    assert read_card("B4761739001010119^O'BRIEN/PAT             ^2812201", T2, None).name == "O'BRIEN/PAT"


@pytest.mark.parametrize(
    ("track1", "track2", "why"),
    [
        (T1, None, "track 2 could not be read"),
        (None, "4761739001010118=28122011000", "track 2: the card number fails its Luhn check"),
        (None, "47617390016=28122011000", "track 2: a card number has 12 to 19 digits"),
        (None, "4761739001010119=28132011000", "track 2: the expiry date .* has no month 13"),
        (None, "4761739001010119==2011000", "track 2 is not laid out"),
        (None, "4761739001010119=2812=1000", "track 2 is not laid out"),
        (None, "4761739001010119", "track 2 is not laid out"),
        (None, "=28122011000", "track 2 is not laid out"),
        (None, "12345678901234567890=2812201", "track 2 is not laid out"),
        ("A4761739001010119^DOE/JOHN^2812201", T2, "track 1 is not laid out"),
        ("B4761739001010119^D^2812201", T2, "track 1 is not laid out"),
        ("B4761739001010119^" + "D" * 27 + "^2812201", T2, "track 1 is not laid out"),
        ("B4761739001010119^DOE/JOHN^^2812201", T2, "track 1 is not laid out"),
        ("B4761739001010118^DOE/JOHN^2812201", T2, "track 1: the card number fails"),
        ("B4111111111111111^DOE/JOHN^2812201", T2, "tracks 1 and 2 are not of the same card"),
        ("B4761739001010119^DOE/JOHN^2811201", T2, "tracks 1 and 2 are not of the same card"),
    ],
)
def test_what_is_no_card_is_an_error_without_its_data(track1: str | None, track2: str | None, why: str) -> None:
    with pytest.raises(CardError, match=why) as caught:
        read_card(track1, track2, None)
    assert "Swipe the card again" in caught.value.advice
    assert isinstance(caught.value, BadSwipe)
    assert caught.value.__cause__ is None
    assert "47617" not in str(caught.value)


def test_a_damaged_track_3_is_an_error_too() -> None:
    with pytest.raises(CardError, match="track 3"):
        read_card(T1, T2, "01A")


any_track = st.none() | st.text(max_size=110) | st.text(sorted(TRACK_1.data), max_size=80)


@given(track1=any_track, track2=any_track | st.text("0123456789=", max_size=40), track3=any_track)
def test_tracks_of_any_kind_are_a_card_or_a_card_error(
    track1: str | None, track2: str | None, track3: str | None
) -> None:
    try:
        card = read_card(track1, track2, track3)
    except CardError:
        return
    assert card.track2 == track2
    card.track2_equivalent()
