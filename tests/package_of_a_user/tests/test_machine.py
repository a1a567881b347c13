"""The machine, with the fixtures that come with tillwright."""

import pytest
from kiosk.machine import Machine

from sim.power import PowerCut
from terminal.money import Amount

PRICE = Amount(250, "EUR")


@pytest.fixture
def card(till_terminal):
    """Somebody holds a card."""
    till_terminal.present("visa")


def sell(till, sale="sale-1", works=True):
    machine = Machine(till.terminal, lambda slot: works)
    return till.run(machine.sell(3, PRICE, sale))


def test_what_fell_is_paid(till_host, till_terminal, card):
    assert sell(till_terminal)
    assert till_host.charge("sale-1")["status"] == "approved"


def test_what_is_stuck_costs_nothing(till_host, till_terminal, card):
    assert not sell(till_terminal, works=False)
    assert till_host.charge("sale-1")["status"] == "canceled"


def test_an_answer_that_is_lost_is_found(till_host, till_terminal, card):
    till_host.fault({"match": {"call": "charge"}, "do": "drop_answer"})
    assert sell(till_terminal)
    assert [charge["status"] for charge in till_host.charges()] == ["approved"]


def test_nobody_pays_where_the_host_does_not_answer(till_host, till_terminal, card):
    till_host.fault({"match": {}, "do": "drop_answer"})
    assert not sell(till_terminal)
    till_host.fault()
    till_terminal.wait(1800)
    assert till_host.charge("sale-1")["status"] == "canceled"
    assert till_terminal.payment("sale-1").state == "canceled"


def test_the_power_goes_between_the_charge_and_the_goods(till_host, till_terminal, card):
    till_host.fault({"match": {"call": "charge"}, "do": "power_cut", "when": "unread"})
    with pytest.raises(PowerCut):
        sell(till_terminal)
    till_host.fault()
    till_terminal.open()
    till_terminal.wait(1800)
    assert till_host.charge("sale-1")["status"] == "canceled"


def test_plain_calls(till_host, till_terminal):
    payment = till_terminal.charge("12.50", reference="order-17", card="mastercard")
    till_terminal.refund(payment.charge_id, "2.50", reason="one was cold")
    assert till_terminal.payment("order-17").left == 1000
    assert till_host.charge("order-17")["status"] == "partially_refunded"


def test_the_same_world_by_hand(world):
    async def day():
        async with world.activated() as till:
            return till.level

    assert world.run(day()) == "activated"
