"""How many charges the simulated host takes, and how long the slowest wait."""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from terminal.journal_file import connect
from tests.bench.against_host import signed_charge, simulator
from tests.bench.measure import Figure
from tests.e2e import second_client
from tests.e2e.second_client import Wire

TERMINALS = 8
CHARGES = 50
"""Of each terminal in one round."""
ROUNDS = 7


def hosting(rounds: int = ROUNDS, terminals: int = TERMINALS, charges: int = CHARGES) -> Iterator[Figure]:
    """Several terminals at once, each with one connection and one charge under way.

    The charges are sealed and signed before the clock starts, and travel by a bare asyncio stream, so that what is
    measured is the host. What little of it is the client is included. Beside it the same number of durable commits
    of one row each, which is what the disk allows anybody.
    """
    commits: list[float] = []
    waits: list[float] = []
    pairs: list[tuple[float, float]] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="till-bench-")))
        wire = stack.enter_context(simulator(folder / "host"))
        devices = [second_client.climb(wire, "activated") for _ in range(terminals)]
        ledger = connect(folder / "bare.db")
        stack.callback(ledger.close)
        ledger.execute("CREATE TABLE charges (n INTEGER PRIMARY KEY, body BLOB NOT NULL)")
        for n in range(rounds + 1):
            ready = [[request(device) for _ in range(charges)] for device in devices]
            start = time.perf_counter()
            waited = asyncio.run(at_once(wire, ready))
            taken = (time.perf_counter() - start) / len(waited)
            start = time.perf_counter()
            committed = [commit(ledger) for _ in waited]
            bare = (time.perf_counter() - start) / len(committed)
            if n > 0:  # the first round fills caches
                pairs.append((1 / taken, 1 / bare))
                waits += waited
                commits += committed
    ours, theirs = sorted(pairs, key=lambda pair: pair[0] / pair[1])[len(pairs) // 2]
    low, _, high = statistics.quantiles([a / b for a, b in pairs], n=4)
    about = (
        f"charges that the simulator takes, {terminals} terminals at once, client included / bare durable commits"
    )
    yield Figure(name="host_charges", ours=ours, theirs=theirs, unit="per s", about=about, spread=(low, high))
    yield Figure(
        name="host_charge_p99",
        ours=p99(waits) * 1e3,
        theirs=p99(commits) * 1e3,
        unit="ms",
        about=f"99 % of the charges wait no longer, {terminals} under way at every moment / p99 of a bare commit",
    )


def request(device: second_client.Terminal) -> bytes:
    """A charge as it travels."""
    headers, body = signed_charge(device)
    head = {**headers, "Host": device.wire.host, "Content-Length": str(len(body))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    return f"POST /pos/charge HTTP/1.1\r\n{lines}\r\n".encode() + body


async def at_once(wire: Wire, ready: list[list[bytes]]) -> list[float]:
    """Seconds that each charge took, all terminals working at the same time."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one_after_another(wire, requests)) for requests in ready]
    return [seconds for task in tasks for seconds in task.result()]


async def one_after_another(wire: Wire, requests: list[bytes]) -> list[float]:
    """Seconds that each charge took, on one connection."""
    reader, writer = await asyncio.open_connection(wire.host, wire.port)
    waited = []
    for each in requests:
        start = time.perf_counter()
        writer.write(each)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(head.partition(b"content-length:")[2].partition(b"\r\n")[0]))
        waited.append(time.perf_counter() - start)
        assert head.startswith(b"http/1.1 200"), head
    writer.close()
    await writer.wait_closed()
    return waited


def commit(ledger: sqlite3.Connection) -> float:
    """Seconds for one row, on the disk."""
    start = time.perf_counter()
    ledger.execute("INSERT INTO charges (body) VALUES (?)", (bytes(1000),))
    return time.perf_counter() - start


def p99(seconds: list[float]) -> float:
    """What 99 % of them do not exceed."""
    return statistics.quantiles(seconds, n=100, method="inclusive")[98]
