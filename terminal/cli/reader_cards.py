"""A card at a reader that is being looked at: read as a payment would, with nothing paid and nothing kept."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from hw.card import Card, ChipCard
from terminal.emv.read import CardData, read
from terminal.emv.terminal_data import UNPREDICTABLE_BYTES, terminal_data
from terminal.money import Amount

AMOUNT: Final = Amount(100, "EUR")
MOMENT: Final = datetime(2026, 1, 1, 12, tzinfo=UTC)
"""What a card is told of a sale that there is none of. Always the same, so that a trace can be played back."""


async def read_chip(card: ChipCard) -> CardData:
    """What a payment would read of a chip. Raises as a card does."""
    asking = read(card.entry_mode, terminal_data(None, AMOUNT, MOMENT, bytes(UNPREDICTABLE_BYTES)))
    command = next(asking)
    try:
        while True:
            command = asking.send(await card.transmit(command))
    except StopIteration as done:
        found: CardData = done.value
        return found


async def chip_in_words(card: ChipCard) -> str:
    """The same, masked and as a line."""
    found = await read_chip(card)
    return f"{found.label or found.aid.hex().upper()} {found.masked_pan}"


async def facts_of(card: Card) -> dict[str, Any]:
    """A card as plain values, masked; a chip is read first. Raises as a card does."""
    facts: dict[str, Any] = {"event": "card", "entry_mode": card.entry_mode.value}
    if not isinstance(card, ChipCard):
        return facts | {"pan": card.masked_pan, "kind": type(card).__name__}
    found = await read_chip(card)
    return facts | {
        "pan": found.masked_pan,
        "kind": type(card).__name__,
        "aid": found.aid.hex().upper(),
        "label": found.label,
        "answer_bytes": len(card.answer),
    }


def in_words(facts: dict[str, Any]) -> str:
    """Those facts as a line."""
    label = f" {facts['label']}" if facts.get("label") else ""
    return f"card by {facts['entry_mode']}:{label} {facts['pan']}"
