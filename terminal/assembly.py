"""A terminal's parts, put together from its home and what the world hands in."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hw.reader import Reader
from terminal import guard
from terminal.asking import Asking
from terminal.cards import Cards
from terminal.climb import Climb
from terminal.clock import RELEASED, HostClock, Now, Random, system_now, system_steady
from terminal.crypto.keystore import Keystore
from terminal.crypto.vault import Secret, Vault
from terminal.disk import Disk
from terminal.errors import KeystoreError
from terminal.events import EventStream
from terminal.exchange import Exchange
from terminal.fetching import kept_config, kept_parameters
from terminal.home import JOURNAL_ID, VAULT_FILE, find_secret
from terminal.journal import Journal
from terminal.journal_file import FILE_NAME as JOURNAL_FILE
from terminal.keeping import Keeping
from terminal.new_charge import NewCharges
from terminal.presence import Presence
from terminal.refund_watch import RefundWatch
from terminal.resolver import Resolver
from terminal.settings import Settings
from terminal.standing import JOURNAL_SEQ, recall
from terminal.tolerances import tolerances
from terminal.totals import scheme
from terminal.turn import Turn

if TYPE_CHECKING:
    import httpx


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a Terminal is made of."""

    settings: Settings
    vault: Vault
    keystore: Keystore
    journal: Journal
    clock: HostClock
    climb: Climb
    asking: Asking
    exchange: Exchange
    resolver: Resolver
    presence: Presence
    cards: Cards
    new_charges: NewCharges
    events: EventStream
    turn: Turn
    keeping: Keeping
    be_ready: Callable[[], Awaitable[None]]
    """Raises NotReady where no payment can be taken, and takes new keys where those in use have expired."""


@asynccontextmanager
async def assembled(
    settings: Settings,
    secret: Secret | None,
    now: Now,
    random: Random,
    transport: httpx.AsyncBaseTransport | None,
    reader: Reader | None,
    journal: Journal | None,
    disk: Disk,
) -> AsyncIterator[Parts]:
    """The parts, until the block ends. See ``Terminal.open``."""
    from terminal.hosts.http import HostSession
    from terminal.hosts.viopay import ViopayClient

    home = Path(settings.home)
    secret = secret or find_secret(settings, os.environ)
    if secret is None:
        raise KeystoreError(
            "nothing was given that opens the vault",
            advice="Set TILL_PASSPHRASE, or the setting credentials_file.",
        )
    async with AsyncExitStack() as stack:
        vault = stack.enter_context(Vault.open(home / VAULT_FILE, secret, random=random, disk=disk))
        guard.check_zmk(settings, vault.facts)
        blocks, keys = tolerances(settings)
        keystore = Keystore(vault, random, tolerances=blocks, tolerated=keys)
        if journal is None:
            journal = Journal.open(
                home / JOURNAL_FILE,
                vault.facts[JOURNAL_ID],
                at_least=int(vault.facts.get(JOURNAL_SEQ, "0")),
                disk=disk,
                random=random,
            )
            stack.callback(journal.close)
        events = EventStream()
        stack.callback(events.close)
        steady = system_steady if now is system_now else asyncio.get_running_loop().time
        step = timedelta(seconds=settings.clock_step)
        clock = HostClock(now, steady=steady, floor=RELEASED, step=step)
        recall(clock, journal)
        session = await stack.enter_async_context(HostSession(settings.host, transport=transport, random=random))
        client = ViopayClient(session, keystore, clock, random, settings.host)
        climb = Climb(client, keystore, vault, clock, settings, events.emit, lambda: journal.seq)
        turn = Turn()
        cards = Cards(settings, keystore, clock, random, events.emit, reader, stack, partial(kept_config, vault))
        presence = Presence(clock, shopper_wait=settings.shopper_wait, confirm_within=settings.confirm_within)
        asking = Asking(client, journal, clock, settings, climb, presence)
        exchange = Exchange(asking, client, journal, clock, settings, events.emit, presence, cards.refund)
        told = partial(kept_config, vault), partial(kept_parameters, vault)
        new_charges = NewCharges(settings, journal, clock, exchange, cards, events.emit, *told)
        be_ready = partial(_be_ready, climb, keystore, clock)
        refunds = RefundWatch(exchange, journal, clock, settings, be_ready)
        resolver = Resolver(
            exchange, journal, clock, random, settings, events.emit, presence, turn, be_ready, refunds
        )
        keeping = Keeping(
            client=client,
            climb=climb,
            clock=clock,
            turn=turn,
            random=random,
            emit=events.emit,
            version=settings.host.client_version,
            kept=vault.get,
            pending=lambda: len(journal.unresolved()),
            tidy=journal.tidy,
            compact=_forgetting(journal, clock, settings.retention_days),
            rounds=resolver,
        )
        yield Parts(
            settings=settings,
            vault=vault,
            keystore=keystore,
            journal=journal,
            clock=clock,
            climb=climb,
            asking=asking,
            exchange=exchange,
            resolver=resolver,
            presence=presence,
            cards=cards,
            new_charges=new_charges,
            events=events,
            turn=turn,
            keeping=keeping,
            be_ready=be_ready,
        )


async def _be_ready(climb: Climb, keystore: Keystore, clock: HostClock) -> None:
    """Raise NotReady where no payment can be taken, and take new keys where those in use have expired."""
    if (problem := climb.not_ready()) is not None:
        raise problem
    expires_at = keystore.key_set_expires_at
    if expires_at is not None and expires_at <= clock.now():
        await climb.renew_keys()
    climb.tidy()


def _forgetting(journal: Journal, clock: HostClock, days: int) -> Callable[[], object] | None:
    """What takes payments out of the journal that ended so long ago; None where they stay."""
    if not days:
        return None

    def forget() -> None:
        now = clock.now()
        journal.compact(now - timedelta(days=days), now, scheme)

    return forget
