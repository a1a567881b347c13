from __future__ import annotations

import asyncio
import dataclasses
from datetime import UTC, datetime

import pytest

from terminal import events
from terminal.events import BACKLOG, CardRead, EventStream, LevelReached, PaymentChanged
from terminal.money import Amount

NOON = datetime(2025, 12, 13, 12, 0, tzinfo=UTC)


def level(name: str) -> LevelReached:
    return LevelReached(at=NOON, level=name)


def test_events_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        level("claimed").level = "activated"


def test_an_event_as_json_values():
    event = PaymentChanged(
        at=NOON,
        payment_id="p",
        kind="charge",
        state="approved",
        reference="order-17",
        amount=Amount(1250, "EUR"),
        charge_id="ch_1",
        response_code="00",
    )
    assert events.as_dict(event) == {
        "event": "payment_changed",
        "at": "2025-12-13T12:00:00Z",
        "payment_id": "p",
        "kind": "charge",
        "state": "approved",
        "reference": "order-17",
        "amount": {"value": "1250", "currency": "EUR"},
        "charge_id": "ch_1",
        "response_code": "00",
    }
    assert events.name(CardRead(at=NOON, masked_pan="", entry_mode="")) == "card_read"


def test_every_listener_hears_everything_from_when_it_began_until_the_end():
    async def main():
        stream = EventStream()
        stream.emit(level("before"))
        first, second = stream.listen(), stream.listen()
        stream.emit(level("a"))
        early = await anext(first)
        waiting = asyncio.create_task(anext(first))
        await asyncio.sleep(0)
        stream.emit(level("b"))
        late = await waiting
        stream.close()
        return [early, late], [event async for event in first], [event async for event in second]

    heard, rest, other = asyncio.run(main())
    assert [event.level for event in heard] == ["a", "b"]
    assert rest == []
    assert [event.level for event in other] == ["a", "b"]


def test_listening_to_a_closed_stream_ends_at_once():
    async def main():
        stream = EventStream()
        stream.close()
        return [event async for event in stream.listen()]

    assert asyncio.run(main()) == []


def test_a_slow_listener_loses_its_oldest_and_stops_nobody():
    async def main():
        stream = EventStream()
        slow = stream.listen()
        for n in range(BACKLOG + 5):
            stream.emit(level(str(n)))
        first = await anext(slow)
        await slow.aclose()
        stream.emit(level("unheard"))
        return first.level, [event.level async for event in slow][-1]

    assert asyncio.run(main()) == ("5", str(BACKLOG + 4))
