"""One payment at a time; what comes between payments gives way."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from sim.virtual_time import run
from terminal.turn import LONGEST, PATIENCE, PAUSE, Interrupted, Turn


async def pay(turn, seconds, log, name):
    async with turn:
        log.append(f"{name} begins")
        await asyncio.sleep(seconds)
        log.append(f"{name} ends")


def test_payments_come_one_after_the_other_in_their_order():
    async def main():
        turn, log = Turn(), []
        await asyncio.gather(pay(turn, 2, log, "first"), pay(turn, 1, log, "second"))
        return log

    assert run(main()) == ["first begins", "first ends", "second begins", "second ends"]


def test_work_between_payments_waits_until_nobody_pays():
    async def main():
        turn, log, loop = Turn(), [], asyncio.get_running_loop()
        paying = asyncio.create_task(pay(turn, 30, log, "payment"))
        await asyncio.sleep(1)
        assert turn.taken()

        async def work():
            log.append("work")
            assert not turn.taken()
            return loop.time()

        ended = await turn.between(work)
        await paying
        return log, ended

    assert run(main()) == (["payment begins", "payment ends", "work"], 30)


def test_a_payment_that_waits_already_goes_first():
    async def main():
        turn, log = Turn(), []

        async def work():
            log.append("work")

        first = asyncio.create_task(pay(turn, 5, log, "first"))
        await asyncio.sleep(0)
        between = asyncio.create_task(turn.between(work))
        await asyncio.sleep(0)
        second = asyncio.create_task(pay(turn, 5, log, "second"))
        with pytest.raises(Interrupted):
            await between
        await asyncio.gather(first, second)
        return log

    assert run(main()) == ["first begins", "first ends", "second begins", "second ends"]


@pytest.mark.parametrize(("seconds", "ends"), [(PATIENCE + 1, False), (PATIENCE + 0.5, True)])
def test_a_payment_waits_a_little_for_work_that_it_found_under_way_and_not_longer(seconds, ends):
    """The payment comes a second after the work has begun."""

    async def main():
        turn, log, loop = Turn(), [], asyncio.get_running_loop()

        async def work():
            await asyncio.sleep(seconds)
            log.append("work ends")

        between = asyncio.create_task(turn.between(work))
        await asyncio.sleep(1)
        async with turn:
            began = loop.time()
        try:
            await between
        except Interrupted:
            log.append("interrupted")
        return log, began

    log, began = run(main())
    assert log == (["work ends"] if ends else ["interrupted"])
    assert began == (seconds if ends else 1 + PATIENCE)


def test_several_payments_cut_the_wait_of_none_short_or_long():
    async def main():
        turn, loop = Turn(), asyncio.get_running_loop()
        between = asyncio.create_task(turn.between(lambda: asyncio.sleep(100)))
        await asyncio.sleep(0)
        began = []

        async def payment(after):
            await asyncio.sleep(after)
            async with turn:
                began.append(loop.time())

        await asyncio.gather(payment(0), payment(1), payment(1.5))
        with pytest.raises(Interrupted):
            await between
        return began

    assert run(main()) == [PATIENCE] * 3


def test_what_the_work_raises_comes_out_and_the_turn_is_free():
    async def main():
        turn = Turn()

        async def late():
            raise TimeoutError("its own")

        with pytest.raises(TimeoutError, match="its own"):
            await turn.between(late)
        assert not turn.taken()
        async with turn:
            assert turn.taken()

    run(main())


def test_who_cancels_the_work_from_outside_sees_it_cancelled():
    async def main():
        turn = Turn()
        between = asyncio.create_task(turn.between(lambda: asyncio.sleep(100)))
        await asyncio.sleep(1)
        between.cancel()
        with pytest.raises(asyncio.CancelledError):
            await between
        async with turn:
            pass

    run(main())


def test_a_payment_that_is_given_up_while_it_waits_leaves_no_trace():
    async def main():
        turn, log = Turn(), []
        first = asyncio.create_task(pay(turn, 10, log, "first"))
        await asyncio.sleep(0)
        second = asyncio.create_task(pay(turn, 10, log, "second"))
        await asyncio.sleep(1)
        second.cancel()
        await asyncio.wait([first, second])
        assert not turn.taken()
        return await turn.between(lambda: asyncio.sleep(0, "done"))

    assert run(main()) == "done"


def test_payments_that_follow_one_another_without_end_let_something_else_come_between():
    """Once a minute, and for as long as a payment waits for what it found under way."""

    async def main():
        turn, log, loop = Turn(), [], asyncio.get_running_loop()

        async def kiosk():
            while loop.time() < 200:
                async with turn:
                    await asyncio.sleep(10)

        async def owed():
            while loop.time() < 200:
                await asyncio.sleep(1)
                if not turn.busy():
                    with contextlib.suppress(Interrupted):
                        await turn.between(hangs)

        async def hangs():
            began = loop.time()
            try:
                await asyncio.sleep(60)
            finally:
                log.append((began, loop.time() - began))

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(kiosk())
            tasks.create_task(owed())
        return log

    first, second, *_ = run(main())
    assert LONGEST <= first[0] <= LONGEST + 10
    assert LONGEST <= second[0] - sum(first) <= LONGEST + 10
    assert [first[1], second[1]] == [PATIENCE, PATIENCE]


def test_after_a_pause_payments_come_first_again():
    async def main():
        turn, log = Turn(), []

        async def work():
            log.append("work")

        await pay(turn, LONGEST + 5, log, "long")
        await asyncio.sleep(PAUSE)
        first = asyncio.create_task(pay(turn, 5, log, "first"))
        await asyncio.sleep(1)
        assert turn.busy()
        between = asyncio.create_task(turn.between(work))
        await asyncio.sleep(0)
        second = asyncio.create_task(pay(turn, 5, log, "second"))
        with pytest.raises(Interrupted):
            await between
        await asyncio.gather(first, second)
        return "work" in log

    assert not run(main())
