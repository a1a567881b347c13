"""What the soak overhears between the terminal and the host."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sim.host.wire import HTML_TYPE
from sim.soak.record import Record
from sim.soak.wiretap import Wiretap


@pytest.mark.parametrize(("content_type", "judged"), [(b"application/json", [(200, "k")]), (HTML_TYPE, [])])
def test_a_page_is_a_proxys_answer_and_not_the_hosts(content_type: bytes, judged: list[tuple[int, str]]) -> None:
    record, passed = Record(), list[Any]()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", content_type)]})

    async def main() -> None:
        async def receive() -> Any:
            return {"type": "http.request", "body": b"{}"}

        async def send(message: Any) -> None:
            passed.append(message)

        scope = {"headers": [(b"idempotency-key", b"k")], "method": "POST", "path": "/pos/charge"}
        await Wiretap(record, lambda: 1.0).heard(app)(scope, receive, send)

    asyncio.run(main())
    assert [(one.status, one.key) for one in record.judged] == judged
    assert len(passed) == 1
