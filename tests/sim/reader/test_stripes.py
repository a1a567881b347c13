"""The emulator's cards and bytes, against bytes that were written out by hand."""

from __future__ import annotations

import asyncio
import termios

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw.errors import CardError, LineGone
from hw.line import DescriptorLink
from hw.link import open_link
from hw.magstripe import parse
from hw.pan import check_pan, mask_pan
from hw.stripe import TRACK_1, TRACK_2, TRACK_3, lrc, play
from sim.reader.line import PtyLine, SocketLine
from sim.reader.magstripe import FORMATS, MagstripeEmulator, on_pty, swipe_bytes
from sim.reader.stripes import CARDS, Stripe, stripe
from tests.hw.peers import until

VISA_1 = "B4761739001010119^TEST CARD/VISA^28122011000001230000"
VISA_2 = "4761739001010119=28122011000001230000"
MAESTRO_3 = "016304939304310009610=="


def test_the_cards_are_published_test_cards_laid_out_as_the_standard_says() -> None:
    assert {card.pan for card in CARDS.values()} == {
        "4761739001010119",
        "4111111111111111",
        "5413330089600010",
        "5555555555554444",
        "378282246310005",
        "6011111111111117",
        "6304939304310009610",
    }
    for name, card in CARDS.items():
        assert card.name == name
        check_pan(card.pan)
        assert mask_pan(card.pan) in repr(card)
        assert card.pan not in repr(card)
    assert play(TRACK_1, CARDS["visa"].tracks[1]) == VISA_1
    assert play(TRACK_2, CARDS["visa"].tracks[2]) == VISA_2
    assert play(TRACK_3, CARDS["maestro"].tracks[3]) == MAESTRO_3


@pytest.mark.parametrize(
    ("make", "sent"),
    [
        ("magtek", f"\x02\x1b%{VISA_1}?;{VISA_2}?0\r\x03"),
        ("idtech", f"%{VISA_1}?\r;{VISA_2}?\r"),
        ("uic", f"\x02%{VISA_1}?{lrc(TRACK_1, VISA_1)}\x10;{VISA_2}?{lrc(TRACK_2, VISA_2)}\x03"),
    ],
)
def test_a_swipe_of_each_make(make: str, sent: str) -> None:
    assert swipe_bytes(CARDS["visa"], make) == sent.encode()


@pytest.mark.parametrize(("make", "start"), [("magtek", "?+"), ("idtech", "?\r;"), ("uic", "\x10;")])
def test_track_3_of_each_make(make: str, start: str) -> None:
    assert (start + MAESTRO_3).encode() in swipe_bytes(CARDS["maestro"], make)


@pytest.mark.parametrize("make", FORMATS)
def test_a_scratched_track_is_told_as_e(make: str) -> None:
    scratched = swipe_bytes(CARDS["visa"].scratched(TRACK_1, TRACK_2), make)
    assert b"%E?" in scratched
    assert b";E?" in scratched
    with pytest.raises(CardError, match="track 2 could not be read"):
        parse(scratched)


def test_a_wrong_lrc_is_told_as_e_or_sent_on() -> None:
    wrong = CARDS["visa"].with_wrong_lrc(TRACK_2)
    for make in ("magtek", "idtech"):
        assert b";E?" in swipe_bytes(wrong, make)
    with pytest.raises(CardError, match="track 2 fails its LRC"):
        parse(swipe_bytes(wrong, "uic"))


pans = st.sampled_from([card.pan for card in CARDS.values()])
holders = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ /.'-", min_size=2, max_size=26)
third = st.text("0123456789=", min_size=0, max_size=TRACK_3.longest_data)


@given(pan=pans, holder=holders, track3=third, service=st.sampled_from(["101", "201", "221"]))
def test_any_card_that_is_built_is_read_back_from_every_make(
    pan: str, holder: str, track3: str, service: str
) -> None:
    card = stripe("any", pan, "3101", service, holder, track3)
    for make in FORMATS:
        for named in ("auto", make):
            read = parse(swipe_bytes(card, make), named)
            assert (read.pan, read.expiry, read.service_code) == (pan, "3101", service)
            assert read.name == holder.strip()
            assert read.track3 == (track3 if track3 and track3 not in ("E", "F", "N") else None)


def test_a_pty_tells_when_a_driver_begins_to_listen() -> None:
    async def main() -> None:
        line = PtyLine()
        heard = asyncio.create_task(line.listening())
        link = await open_link(line.path)
        await asyncio.wait_for(heard, 10)
        heard = asyncio.create_task(line.listening())
        await link.write(b"a command, which is no sign of listening")
        await line.write(b"sent")
        assert await link.read() == b"sent"
        assert not heard.done()
        link.discard()
        await asyncio.wait_for(heard, 10)
        heard = asyncio.create_task(line.listening())
        await asyncio.sleep(0)
        await line.close()
        await line.close()
        with pytest.raises(LineGone):
            await heard
        with pytest.raises(LineGone):
            await line.write(b"x")
        await link.close()

    asyncio.run(main())


def test_what_a_driver_asks_is_heard_while_its_listening_is_waited_for() -> None:
    async def main() -> None:
        line = PtyLine()
        link = await open_link(line.path)
        await line.listening()
        heard, asked = asyncio.create_task(line.listening()), asyncio.create_task(line.read())
        await asyncio.sleep(0)
        await link.write(b"asked")
        assert await asyncio.wait_for(asked, 10) == b"asked"
        assert not heard.done()
        link.discard()
        await link.write(b"for the answer's sake")
        await asyncio.wait_for(heard, 10)  # what comes behind it is not known yet
        assert await line.read() == b"for the answer's sake"
        link.discard()
        await link.write(b"and more")
        assert await line.read() == b"and more"
        heard = asyncio.create_task(line.listening())
        asked = asyncio.create_task(line.read())
        await asyncio.sleep(0)
        assert not heard.done()
        await line.close()
        for waiting in (heard, asked):
            with pytest.raises(LineGone):
                await waiting
        await link.close()

    asyncio.run(main())


def test_what_is_dropped_before_it_is_heard_is_nothing_that_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    packets = [bytes((termios.TIOCPKT_FLUSHREAD,)), b"\0", b"\0asked"]

    class Master(DescriptorLink):
        async def read(self) -> bytes:
            return packets.pop(0)

    monkeypatch.setattr("sim.reader.line.DescriptorLink", Master)

    async def main() -> None:
        line = PtyLine()
        await line.listening()
        assert await line.read() == b"asked"
        packets[:] = [bytes((termios.TIOCPKT_FLUSHREAD,)), b"\0", b"\0asked", b"\0again"]
        assert [await line.read() for _ in range(2)] == [b"asked", b"again"]
        await line.close()

    asyncio.run(main())


def test_a_socket_sends_to_everyone_and_outlives_who_leaves() -> None:
    async def main() -> None:
        line = SocketLine()
        await line.close()  # not open yet: nothing to do
        await line.open()
        first = await open_link(f"socket://127.0.0.1:{line.port}")
        second = await open_link(f"socket://127.0.0.1:{line.port}")
        await line.listening()
        await until(lambda: len(line._peers) == 2)
        await first.write(b"whatever")
        await line.write(b"both")
        assert [await first.read(), await second.read()] == [b"both", b"both"]
        await first.close()
        await until(lambda: len(line._peers) == 1)
        await line.write(b"one")
        assert await second.read() == b"one"
        await line.close()
        with pytest.raises(LineGone):
            await second.read()
        await second.close()

    asyncio.run(main())


def test_a_card_of_one_s_own_can_be_swiped() -> None:
    async def main() -> None:
        own = Stripe("own", CARDS["visa"].pan, {2: CARDS["visa"].tracks[2]})
        async with on_pty("idtech") as emulated:
            link = await open_link(emulated.line.path)  # type: ignore[union-attr]
            await MagstripeEmulator(emulated.line, "idtech").swipe(own)
            assert await link.read() == f";{VISA_2}?\r".encode()
            await link.close()

    asyncio.run(main())
