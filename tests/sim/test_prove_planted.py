"""Bugs planted into the shipped tables and functions are found, and the counterexample fails in the world."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from unittest import mock

import pytest

from sim.prove.bounds import SEARCHES
from sim.prove.records import key_name, slot_of
from sim.prove.search import Search
from sim.prove.states import Bounds
from sim.prove.story import as_test, as_words
from terminal import course, recovery, refusals
from terminal.payment import PAYMENT, Happened, Kind, State
from terminal.recovery import Act
from terminal.turn import Turn
from tests.sim import planted


def unwritten(leaves_out):
    """What fits is done as if it had been written."""
    write = course._write

    def skipping(payment, happened, facts=None):
        if leaves_out(payment, happened):
            return dataclasses.replace(payment, state=PAYMENT.step(payment.state, happened))
        return (yield from write(payment, happened, facts))

    return mock.patch.object(course, "_write", skipping)


def no_intent_written():
    return unwritten(lambda payment, happened: happened is Happened.JOURNALLED)


def no_outcome_written():
    return unwritten(lambda payment, happened: happened is Happened.APPROVED and payment.kind is Kind.CHARGE)


def new_key_on_retry():
    send = course._send

    def renamed(payment, act, **more) -> Generator:
        running, given = send(payment, act, **more), None
        try:
            while True:
                effect = running.send(given)
                if isinstance(effect, course.Do) and effect.sent_before:
                    other = dataclasses.replace(effect.payment, id=key_name(slot_of(effect.payment) + 16))
                    effect = dataclasses.replace(effect, payment=other)
                given = yield effect
        except StopIteration as end:
            return end.value

    return mock.patch.object(course, "_send", renamed)


@contextmanager
def resealed_retry():
    again = {Happened.SEALED_AGAIN: State.IN_FLIGHT}
    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict(recovery.WRITTEN_BEFORE, {Act.SEND: Happened.SEALED_AGAIN}))
        stack.enter_context(mock.patch.dict(PAYMENT.table[State.IN_DOUBT], again))
        yield


def renewal_in_mid_payment():
    async def at_once(self, work):
        return await work()

    return mock.patch.object(Turn, "between", at_once)


def never_given_up():
    """What the host cannot open is sent again, and again."""
    rows = tuple(row for row in refusals.PROOFS if refusals.UNREADABLE not in row.statuses)
    return mock.patch.object(refusals, "PROOFS", rows)


PLANTED = {
    # name: (the bug, the search that finds it, what it says)
    "no intent written": (no_intent_written, "charge", "knows nothing of"),
    "no outcome written": (no_outcome_written, "charge", "without the host's id"),
    "a new key on retry": (new_key_on_retry, "charge", "another idempotency key"),
    "a re-sealed retry": (resealed_retry, "charge", "other bytes"),
    "a forgotten cancel": (planted.forgotten_cancel, "charge", "left to a person"),
    "held for ever": (planted.held_for_ever, "hold", "nothing goes on with it"),
    "renewal in mid-payment": (renewal_in_mid_payment, "keys rotated", "in the middle of a payment"),
    "belief in an answer for another amount": (planted.belief_in_another_amount, "charge", "another amount"),
    "a re-send after the shopper left": (planted.sent_after_leaving, "charge", "the host can be asked"),
    "silence is a refusal": (planted.silence_is_a_refusal, "charge", "the journal says refused"),
    "what does not open is never given up": (never_given_up, "offline, keys rotated", "nothing ever comes to rest"),
}
BY_NAME = {bounds.name: bounds for bounds in SEARCHES}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bug_is_found(name):
    plant, search, says = PLANTED[name]
    with plant():
        result = Search(BY_NAME[search]).run()
    assert result.found is not None
    assert says in result.found.broken
    assert len(as_words(result.found)) == len(result.found.path) > 0
    compile(as_test(result.found, BY_NAME[search]), name, "exec")


@pytest.mark.parametrize("name", ["a forgotten cancel", "belief in an answer for another amount"])
def test_its_counterexample_fails_in_the_world_and_only_with_the_bug(name, tmp_path):
    plant, search, _ = PLANTED[name]
    bounds: Bounds = BY_NAME[search]
    with plant():
        found = Search(bounds).run().found
    source = tmp_path / "counterexample.py"
    source.write_text(as_test(found, bounds))
    spec = importlib.util.spec_from_file_location("counterexample", source)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "sound").mkdir()
    module.test_counterexample(tmp_path / "sound")
    (tmp_path / "planted").mkdir()
    with plant(), pytest.raises(AssertionError):
        module.test_counterexample(tmp_path / "planted")
