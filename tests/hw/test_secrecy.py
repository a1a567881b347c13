"""A canary card is read, misread, refused and lost, with every log on: none of its data is in anything written."""

from __future__ import annotations

import asyncio
import base64
import io
import logging
import traceback

import pytest

from hw.card import ManualCard
from hw.errors import ReaderError
from hw.magstripe import parse
from hw.pan import luhn_digit
from hw.reader import open_reader
from hw.stripe import TRACK_2, play
from sim.reader.magstripe import FORMATS, Fault, on_pty, swipe_bytes
from sim.reader.stripes import Stripe, stripe
from tests.hw.test_reader import waiting

CANARY = "499900112233445" + luhn_digit("499900112233445")
HOLDER = "WREN/JENNY"


def traces() -> list[str]:
    """What the canary would look like: clear, hex, base64 at each of the three alignments, in part."""
    inner = CANARY[5:13]
    bases = [base64.b64encode(b"x" * shift + CANARY.encode())[4:-4].decode() for shift in range(3)]
    return [CANARY, inner, CANARY.encode().hex(), *bases, HOLDER, HOLDER.split("/", 1)[0]]


def everything(error: BaseException) -> str:
    """An error as any handler could write it, with all that hangs on it."""
    seen, chain = [], [error]
    while chain:
        current = chain.pop()
        seen.append(f"{current!r} {current} {current.args} {vars(current)}")
        chain += [other for other in (current.__cause__, current.__context__) if other is not None]
    return "\n".join([*seen, *traceback.format_exception(error)])


@pytest.mark.parametrize("make", FORMATS)
def test_nothing_that_is_written_shows_the_card(make: str, capfd: pytest.CaptureFixture[str]) -> None:
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    canary = stripe("canary", CANARY, "2812", "201", HOLDER)
    written: list[str] = []

    async def main() -> None:
        async with on_pty(make) as emulated, open_reader(emulated.url) as reader:
            for fault in (None, *Fault):
                wait = await waiting(reader)
                await emulated.swipe(canary, fault)
                try:
                    card = await wait
                except ReaderError as error:
                    written.append(everything(error) + error.advice)
                else:
                    written.append(f"{card!r} {card} {wait!r} {reader!r} {emulated!r} {canary!r}")

    try:
        asyncio.run(main(), debug=True)
    finally:
        root.removeHandler(handler)
        root.setLevel(before)
    out, err = capfd.readouterr()
    searched = "\n".join([*written, log.getvalue(), out, err])
    assert "499900" in searched  # the masked PAN is there, so we look in the right place
    assert "the device is gone" in searched
    for trace in traces():
        assert trace not in searched


def damaged() -> list[bytes]:
    """The canary's swipe, with each of its bytes spoilt, and cut off at each."""
    whole = swipe_bytes(stripe("canary", CANARY, "2812", "201", HOLDER), "magtek")
    spoilt = [whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :] for place in range(len(whole))]
    return spoilt + [whole[:place] for place in range(len(whole))]


def test_no_error_of_a_damaged_swipe_shows_the_card() -> None:
    errors = []
    for message in damaged():
        try:
            parse(message)
        except ReaderError as error:
            errors.append(everything(error))
    assert len(errors) > 100
    for trace in traces():
        assert trace not in "\n".join(errors)


def test_no_error_of_the_stripe_or_the_keys_shows_the_card() -> None:
    canary: Stripe = stripe("canary", CANARY, "2812", "201", HOLDER)
    attempts = [
        lambda: play(TRACK_2, canary.scratched(TRACK_2).tracks[2]),
        lambda: play(TRACK_2, canary.with_wrong_lrc(TRACK_2).tracks[2]),
        lambda: ManualCard(CANARY[:-1] + "9", "2812"),
        lambda: ManualCard(CANARY, "2813"),
        lambda: ManualCard(CANARY + "X", "2812"),
    ]
    for attempt in attempts:
        with pytest.raises(ReaderError) as caught:
            attempt()
        for trace in traces():
            assert trace not in everything(caught.value)
