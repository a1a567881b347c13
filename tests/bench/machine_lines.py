"""A step of a literal table beside the same table in the ``transitions`` library."""

from __future__ import annotations

from collections.abc import Iterator

import transitions

from terminal.payment import PAYMENT, Happened, State
from tests.bench.measure import Figure, compare

ROUND_TRIP = (Happened.SILENT, Happened.SENT_AGAIN)
"""Into doubt and back: two steps that end where they began."""


class _Model:
    """What the library hangs its state and its triggers on."""

    state: str


def stepping() -> Iterator[Figure]:
    """One step."""
    model = _Model()
    transitions.Machine(
        model,
        states=[state.value for state in State],
        transitions=[
            [event.value, state.value, after.value]
            for state, row in PAYMENT.table.items()
            for event, after in row.items()
        ],
        initial=State.IN_FLIGHT.value,
        auto_transitions=False,
    )
    triggers = [getattr(model, event.value) for event in ROUND_TRIP]

    def ours() -> State:
        state = State.IN_FLIGHT
        for event in ROUND_TRIP:
            state = PAYMENT.step(state, event)
        return state

    def theirs() -> str:
        for trigger in triggers:
            trigger()
        return model.state

    assert ours() == theirs() == State.IN_FLIGHT
    pair = compare({"ours": ours, "transitions": theirs})
    for seconds in pair.seconds.values():
        seconds[:] = [each / len(ROUND_TRIP) for each in seconds]
    yield pair.figure(
        "machine_step", "ours", "transitions", bound=0.05, about="a step of the payment's table / transitions"
    )
