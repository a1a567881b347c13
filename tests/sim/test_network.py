"""The network in one process: timeouts, pieces, callers who hang up, and hosts that act all the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest

from sim.host.wire import ConnectionCut, read_body, send_body
from sim.network import NEVER, WINDOW, Network, Trip
from sim.virtual_time import run

URL = "http://127.0.0.1:8080/pos/charge"
TIMEOUTS = {"connect": 3.0, "write": 5.0, "read": 10.0}


def now() -> float:
    return asyncio.get_running_loop().time()


def request(content: Any = b"a charge", timeouts: dict[str, float | None] | None = None) -> httpx.Request:
    return httpx.Request("POST", URL, content=content, extensions={"timeout": timeouts or TIMEOUTS})


async def ask(network: Network, asked: httpx.Request | None = None) -> bytes:
    response = await network.handle_async_request(asked or request())
    try:
        return await response.aread()
    finally:
        await response.aclose()


async def start(send: Any, status: int = 200) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"x-piece", b"yes")]})


async def piece(send: Any, body: bytes, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})


class Host:
    """An application that acts after some time, and notes when, on what, and when it was told to listen no more."""

    def __init__(self, works: float = 0.0) -> None:
        self.works = works
        self.acted: list[tuple[float, bytes | None]] = []
        self.alone: list[float] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = await read_body(scope, receive, 2**20)
        await asyncio.sleep(self.works)
        self.acted.append((now(), body))
        await send_body(send, 200, b"approved")
        assert (await receive())["type"] == "http.disconnect"
        self.alone.append(now())


def test_a_request_and_its_answer() -> None:
    seen: dict[str, Any] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.update(scope, body=await read_body(scope, receive, 100))
        await start(send, 201)
        await piece(send, b"done", more=False)

    async def main() -> tuple[int, bytes, str]:
        asked = httpx.Request("POST", URL + "?a=b", content=b"{}", headers={"X-Nonce": "n"})
        response = await Network(app).handle_async_request(asked)
        return response.status_code, await response.aread(), response.headers["x-piece"]

    assert run(main()) == (201, b"done", "yes")
    assert (seen["method"], seen["path"], seen["query_string"], seen["body"]) == (
        "POST",
        "/pos/charge",
        b"a=b",
        b"{}",
    )
    assert (seen["client"], seen["server"]) == (("127.0.0.1", 50_000), ("127.0.0.1", 8080))
    assert (b"x-nonce", b"n") in seen["headers"]


class TestTimeouts:
    def late(
        self, network: Network, kind: type[httpx.TimeoutException], asked: httpx.Request | None = None
    ) -> tuple[float, float]:
        """When the caller gave up, and when the application had ended."""

        async def main() -> tuple[float, float]:
            with pytest.raises(kind):
                await ask(network, asked)
            gave_up = now()
            await network.finished()
            return gave_up, now()

        return run(main())

    def test_a_connection_that_does_not_come(self) -> None:
        host = Host()
        network = Network(host, trip=lambda request: Trip(connect=NEVER))
        assert self.late(network, httpx.ConnectTimeout) == (3.0, 3.0)
        assert host.acted == []

    def test_a_connection_that_comes_in_time(self) -> None:
        async def main() -> tuple[bytes, float]:
            return await ask(Network(Host(), trip=lambda request: Trip(connect=2.5))), now()

        assert run(main()) == (b"approved", 2.5)

    def test_a_host_that_acts_although_nobody_listens_any_more(self) -> None:
        host = Host(works=60)
        assert self.late(Network(host), httpx.ReadTimeout) == (10.0, 60.0)
        assert host.acted == [(60.0, b"a charge")]
        assert host.alone == [60.0]

    def test_a_request_that_arrives_after_its_caller_has_gone_is_acted_upon(self) -> None:
        host = Host()
        network = Network(host, trip=lambda request: Trip(there=25.0))
        assert self.late(network, httpx.ReadTimeout) == (10.0, 25.0)
        assert host.acted == [(25.0, b"a charge")]

    def test_a_request_that_never_arrives_is_not(self) -> None:
        host = Host()
        network = Network(host, trip=lambda request: Trip(there=NEVER))
        assert self.late(network, httpx.ReadTimeout) == (10.0, 10.0)
        assert host.acted == []

    def test_an_answer_that_is_lost_after_the_host_has_acted(self) -> None:
        host = Host()
        network = Network(host, trip=lambda request: Trip(there=1.0, back=NEVER))
        assert self.late(network, httpx.ReadTimeout)[0] == 10.0
        assert host.acted == [(1.0, b"a charge")]

    def test_an_answer_that_takes_its_time(self) -> None:
        async def main() -> tuple[bytes, float]:
            return await ask(Network(Host(), trip=lambda request: Trip(there=4.0, back=5.0))), now()

        assert run(main()) == (b"approved", 9.0)

    def test_an_application_that_does_not_read(self) -> None:
        told = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await asyncio.sleep(100)
            while (message := await receive())["type"] == "http.request":
                told.append(len(message["body"]))
                assert message["more_body"]
            told.append(message["type"])

        whole = request(b"x" * (WINDOW + 1))
        assert self.late(Network(app), httpx.WriteTimeout, whole) == (5.0, 100.0)
        assert told == [WINDOW, "http.disconnect"]

    def test_a_slow_answer_is_in_time_while_each_piece_is(self) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await start(send)
            for _ in range(5):
                await asyncio.sleep(9)
                await piece(send, b".")
            await asyncio.sleep(11)
            await piece(send, b"late", more=False)

        async def main() -> None:
            network = Network(app)
            response = await network.handle_async_request(request())
            assert now() == 0
            got: list[tuple[float, bytes]] = []

            async def read() -> None:
                async for part in response.aiter_raw():
                    got.append((now(), part))

            with pytest.raises(httpx.ReadTimeout):
                await read()
            assert got == [(9.0 * n, b".") for n in range(1, 6)]
            assert now() == 55.0

        run(main())

    def test_without_a_timeout_the_caller_waits(self) -> None:
        async def main() -> tuple[bytes, float]:
            return await ask(Network(Host(works=86_400)), httpx.Request("POST", URL)), now()

        assert run(main()) == (b"approved", 86_400.0)

    def test_what_never_ends_is_noticed(self) -> None:
        network = Network(Host(), trip=lambda request: Trip(back=NEVER))
        with pytest.raises(RuntimeError, match="deadlock"):
            run(ask(network, httpx.Request("POST", URL)))


class TestPieces:
    def test_a_body_is_made_while_it_is_read(self) -> None:
        happened: list[Any] = []

        async def body() -> AsyncIterator[bytes]:
            for n in range(3):
                happened.append(n)
                yield bytes([n]) * WINDOW

        async def app(scope: Any, receive: Any, send: Any) -> None:
            more = True
            while more:
                message = await receive()
                happened.append(message["body"][:1])
                more = message["more_body"]
            await send_body(send, 200, b"")

        assert run(ask(Network(app), request(body()))) == b""
        assert happened.index(b"\0") < happened.index(2)
        assert [x for x in happened if isinstance(x, int)] == [0, 1, 2]

    def test_an_answer_is_made_while_it_is_read(self) -> None:
        made = 0

        async def app(scope: Any, receive: Any, send: Any) -> None:
            nonlocal made
            await start(send)
            for _ in range(10):
                await piece(send, b"x" * WINDOW)
                made += 1
            await piece(send, b"", more=False)

        async def main() -> list[tuple[int, int]]:
            response = await Network(app).handle_async_request(request())
            await asyncio.sleep(1)
            got = [(made, 0)]
            async for part in response.aiter_raw():
                got.append((made, len(part)))
            return got

        got = run(main())
        assert got[0] == (1, 0)
        assert all(made <= n + 2 for n, (made, _) in enumerate(got))
        assert sum(size for _, size in got) == 10 * WINDOW

    def test_a_caller_who_has_heard_enough(self) -> None:
        told: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await read_body(scope, receive, 100)
            await start(send)
            await piece(send, b"first")
            told.append((await receive())["type"])
            await piece(send, b"x" * 10 * WINDOW)
            await piece(send, b"nobody hears this", more=False)
            told.append("ended")

        async def main() -> None:
            network = Network(app)
            response = await network.handle_async_request(request())
            assert await anext(response.aiter_raw()) == b"first"
            assert told == []
            await response.aclose()
            await network.finished()

        run(main())
        assert told == ["http.disconnect", "ended"]

    def test_an_answer_before_the_body_was_read(self) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send_body(send, 413, b"too large")

        assert run(ask(Network(app), request(b"x" * 10 * WINDOW))) == b"too large"

    def test_requests_at_once_are_apart(self) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            body = await read_body(scope, receive, 100)
            assert body is not None
            await asyncio.sleep(float(body))
            await send_body(send, 200, body)

        async def main() -> tuple[list[bytes], float]:
            network = Network(app)
            return await asyncio.gather(*(ask(network, request(b"%d" % n)) for n in (3, 1, 2))), now()

        assert run(main()) == ([b"3", b"1", b"2"], 3.0)


class TestGoneCallers:
    def test_a_caller_who_is_cancelled(self) -> None:
        host = Host(works=8)

        async def main() -> None:
            network = Network(host)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(2):
                    await ask(network)
            await network.finished()

        run(main())
        assert host.acted == [(8.0, b"a charge")]

    def test_before_keeps_the_request_from_the_host(self) -> None:
        host = Host()

        def refuse(request: httpx.Request) -> None:
            raise httpx.ConnectError("refused", request=request)

        async def main() -> None:
            network = Network(host, before=refuse)
            with pytest.raises(httpx.ConnectError):
                await ask(network)
            await network.finished()
            assert network.paths() == ["POST /pos/charge"]

        run(main())
        assert host.acted == []

    def test_after_keeps_the_answer_from_the_caller(self) -> None:
        host = Host(works=1)

        def lose(request: httpx.Request) -> None:
            assert host.acted == [(1.0, b"a charge")]
            raise httpx.ReadError("reset", request=request)

        async def main() -> None:
            network = Network(host, after=lose)
            with pytest.raises(httpx.ReadError):
                await ask(network)
            await network.finished()

        run(main())
        assert len(host.acted) == len(host.alone) == 1


async def cut_before(scope: Any, receive: Any, send: Any) -> None:
    raise ConnectionCut


async def cut_in_the_middle(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"8")]})
    await piece(send, b"appr")
    raise ConnectionCut


async def over_sockets(said: bytes, use: Callable[[httpx.AsyncBaseTransport, str], Awaitable[Any]]) -> Any:
    """httpx's own transport, and a server that says this and closes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, httpx.AsyncHTTPTransport(trust_env=False) as transport:
        return await use(transport, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")


class TestCuts:
    @pytest.mark.parametrize(
        ("app", "said", "got"),
        [
            (cut_before, b"", []),
            (cut_in_the_middle, b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nappr", [200, b"appr"]),
        ],
    )
    def test_a_cut_is_what_it_is_to_httpx_over_a_socket(self, app: Any, said: bytes, got: list[Any]) -> None:
        async def use(transport: httpx.AsyncBaseTransport, url: str) -> tuple[list[Any], type[Exception], str]:
            seen: list[Any] = []

            async def read() -> None:
                response = await transport.handle_async_request(httpx.Request("GET", url))
                seen.append(response.status_code)
                async for part in response.aiter_raw():
                    seen.append(part)

            with pytest.raises(httpx.TransportError) as caught:
                await asyncio.wait_for(read(), 60)
            return seen, caught.type, str(caught.value).partition(" (")[0]

        real = asyncio.run(over_sockets(said, use))
        assert run(use(Network(app), URL)) == real
        assert real[:2] == (got, httpx.RemoteProtocolError)

    def test_a_cut_takes_as_long_as_an_answer(self) -> None:
        async def main() -> float:
            with pytest.raises(httpx.RemoteProtocolError):
                await ask(Network(cut_before, trip=lambda request: Trip(there=2.0, back=3.0)))
            return now()

        assert run(main()) == 5.0

    def test_an_application_that_is_cancelled_leaves_a_cut(self) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await start(send)
            await piece(send, b"appr")
            raise asyncio.CancelledError

        async def main() -> None:
            response = await Network(app).handle_async_request(request())
            got = response.aiter_raw()
            assert await anext(got) == b"appr"
            with pytest.raises(httpx.RemoteProtocolError):
                await anext(got)

        run(main())


class TestMistakesOfTheApplication:
    def test_reach_the_caller(self) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            raise LookupError("a mistake")

        async def main() -> None:
            network = Network(app)
            with pytest.raises(LookupError):
                await ask(network)
            await network.finished()

        run(main())

    def test_are_kept_where_the_caller_has_gone(self) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await asyncio.sleep(60)
            raise LookupError("a mistake")

        async def main() -> None:
            network = Network(app)
            with pytest.raises(httpx.ReadTimeout):
                await ask(network)
            with pytest.raises(LookupError):
                await network.finished()
            await network.finished()

        run(main())

    @pytest.mark.parametrize(
        ("messages", "words"),
        [
            ([], "ended without an answer"),
            ([{"type": "http.response.start", "status": 200}], "ended without an answer"),
            ([{"type": "http.response.body", "body": b"x"}], "before it began an answer"),
        ],
    )
    def test_an_answer_that_is_none(self, messages: list[Any], words: str) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            for message in messages:
                await send(message)

        with pytest.raises(RuntimeError, match=words):
            run(ask(Network(app)))

    def test_more_than_one_answer(self) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send_body(send, 200, b"one")
            await send_body(send, 200, b"two")

        async def main() -> None:
            network = Network(app)
            assert await ask(network) == b"one"
            with pytest.raises(RuntimeError, match="after its answer was whole"):
                await network.finished()

        run(main())
