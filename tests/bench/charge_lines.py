"""What a charge costs the terminal's processor, beside the same charge without us; and where it goes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

from hw.card import ManualCard
from terminal.clock import system_now
from terminal.crypto import envelope, signature
from terminal.journal import Journal, SealedRequest
from terminal.money import Amount
from terminal.payment import Happened, Kind, Payment, State
from terminal.terminal import Terminal
from tests.bench.against_host import (
    EXPIRY,
    PAN,
    RequestsTerminal,
    activate,
    provision,
    signed_charge,
    simulator,
    url_of,
)
from tests.bench.measure import Figure, Work, alternate
from tests.e2e import second_client

CHARGES = 20
"""In one batch."""
ROUNDS = 21
AMOUNT = Amount(1250, "EUR")


def charging(rounds: int = ROUNDS, charges: int = CHARGES) -> Iterator[Figure]:
    """CPU time of this process alone: the host is another."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="till-bench-")))
        wire = stack.enter_context(simulator(folder / "host"))
        device = second_client.climb(wire, "activated")
        runner = stack.enter_context(asyncio.Runner())
        open_until = AsyncExitStack()
        stack.callback(lambda: runner.run(open_until.aclose()))

        merchant, wanted = provision(wire, folder / "till")
        till = runner.run(open_until.enter_async_context(Terminal.open(wanted)))
        runner.run(activate(till, merchant))
        client = httpx.AsyncClient(trust_env=False)
        runner.run(open_until.enter_async_context(client))
        transport = httpx.AsyncHTTPTransport(trust_env=False)
        runner.run(open_until.enter_async_context(transport))
        plain, lean = RequestsTerminal(device), RequestsTerminal(device, lean=True)
        stack.callback(plain.session.close)
        stack.callback(lean.session.close)
        journal = Journal.create(folder / "journal.db", "bench")
        stack.callback(journal.close)

        def on_loop(once: Callable[[], Awaitable[None]]) -> Work:
            async def batch() -> None:
                for _ in range(charges):
                    await once()

            return lambda: runner.run(batch())

        def in_line(once: Work) -> Work:
            def batch() -> None:
                for _ in range(charges):
                    once()

            return batch

        number = count()
        card = ManualCard(PAN, EXPIRY)

        async def ours() -> None:
            payment = await till.charge(AMOUNT, reference=f"ours-{next(number)}", card=card)
            assert payment.state is State.APPROVED, payment

        def theirs() -> object:
            return plain.charge(AMOUNT.minor, AMOUNT.currency, f"theirs-{next(number)}")

        def lean_theirs() -> object:
            return lean.charge(AMOUNT.minor, AMOUNT.currency, f"theirs-{next(number)}")

        ready = iter([signed_charge(device) for _ in range(3 * (rounds + 1) * charges)])
        url = url_of(wire) + "/pos/charge"
        parsed = httpx.URL(url)

        async def bare_transport() -> None:
            headers, body = next(ready)
            response = await transport.handle_async_request(
                httpx.Request("POST", parsed, headers=headers, content=body)
            )
            await response.aread()
            assert response.status_code == 200

        async def bare_client() -> None:
            headers, body = next(ready)
            assert (await client.post(url, content=body, headers=headers)).status_code == 200

        def bare_requests() -> None:
            headers, body = next(ready)
            assert lean.session.post(url, data=body, headers=headers).status_code == 200

        samples = alternate(
            {
                "ours": on_loop(ours),
                "theirs": in_line(theirs),
                "lean": in_line(lean_theirs),
                "httpx": on_loop(bare_transport),
                "client": on_loop(bare_client),
                "requests": in_line(bare_requests),
                "journal": in_line(lambda: journalled(journal, next(number))),
                "crypto": in_line(crypto_of_a_charge(device)),
            },
            operations=charges,
            rounds=rounds,
        )
    whole = samples.figure(
        "charge_cpu",
        "ours",
        "theirs",
        bound=2.0,
        about="CPU of a charge in the terminal, journal included / the same written with a requests.Session and "
        "pycryptodome, without a journal",
    )
    yield whole
    yield samples.figure(
        "charge_cpu_lean", "ours", "lean", about="the same / with a session told not to read the environment"
    )
    parts = [
        samples.figure(f"charge_of_{name}", name, "ours", about=f"of that charge, measured by itself: {about}")
        for name, about in (
            ("httpx", "httpx's transport posting such bytes"),
            ("journal", "two durable commits and four look-ups"),
            ("crypto", "card and request sealed and signed, the answer opened"),
        )
    ]
    yield from parts
    yield Figure(
        name="charge_of_rest",
        ours=whole.ours * (1 - sum(part.ratio for part in parts)),
        theirs=whole.ours,
        unit="us",
        about="what is left: fields checked both ways, events, the event loop, and the caches that all of it finds "
        "cold after waiting for the host",
    )
    yield samples.figure(
        "post_cpu", "client", "requests", about="a bare POST by httpx.AsyncClient / by a lean requests.Session"
    )


def journalled(journal: Journal, number: int) -> None:
    """What a charge asks of the journal."""
    payment = Payment(
        id=os.urandom(16).hex(), kind=Kind.CHARGE, reference=f"j-{number}", amount=AMOUNT, created_at=system_now()
    )
    assert journal.charge_by_reference(payment.reference) is None
    journal.begin(payment, SealedRequest("ks_1", bytes(1200)))
    assert journal.request(payment.id) is not None
    assert journal.charge_by_charge_id(f"ch_{number}") is None
    journal.record(
        payment.id,
        Happened.APPROVED,
        system_now(),
        charge_id=f"ch_{number}",
        authorization_code="A1B2C3",
        response_code="00",
        approved=AMOUNT,
    )


def crypto_of_a_charge(device: second_client.Terminal) -> Work:
    """The cryptography of one charge, without the checks of who may use which key."""
    msk, tdk, mac = (device.keys[role] for role in ("msk", "tdk", "mac"))
    answer = envelope.encode(envelope.seal(msk.value, bytes(300), os.urandom, kcv=msk.kcv))

    def once() -> bytes:
        card = envelope.seal(tdk.value, PAN.encode(), os.urandom, kcv=tdk.kcv)
        body = envelope.encode(envelope.seal(msk.value, envelope.encode(card) + bytes(150), os.urandom))
        fields = ("TID-000001", mac.key_id, "2026-01-05T09:00:00Z", signature.nonce(os.urandom))
        message = signature.request_message(signature.Scheme.PREFIXED, *fields, body)
        signature.header_value(signature.hmac_sha256(mac.value, message))
        return envelope.open_envelope(msk.value, answer, limit=64 * 1024)

    return once
