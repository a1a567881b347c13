"""What becomes of a call when the network, or the host, does not do as it should."""

from __future__ import annotations

import asyncio
import gzip
import socket
import traceback

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from terminal.errors import HostRefused, HostSilent, HostUnreachable, SettingsError
from terminal.hosts import http
from terminal.hosts.auth import BearerAuth
from terminal.hosts.http import Call, HostSession, Repeat, retry_after
from terminal.hosts.viopay_refusals import refusal
from terminal.settings import HostSettings
from tests.terminal.hosts.scripted import HANG, Cut, Drip, ScriptedHost, Then, error, reply, run

ASK = Call("ask", "GET", "/ask", "none", Repeat.FREELY)
KEYED = Call("pay", "POST", "/pay", "none", Repeat.KEYED)
ONCE = Call("once", "POST", "/once", "none", Repeat.NEVER)

CANARY = "att_canary-7e5b1c9d"


def most(n: int) -> bytes:
    """Randomness that draws the longest wait."""
    return b"\xff" * n


def session(url: str, **settings: object) -> HostSession:
    return HostSession(HostSettings(url=url, **settings), random=most)  # type: ignore[arg-type]


async def talk(script: list, call: Call = ASK, body: bytes = b"", **settings: object) -> ScriptedHost:
    """One call against a script; raises what the call raises, with the host as its ``host``."""
    async with ScriptedHost(script) as host, session(host.url, **settings) as client:
        try:
            host.answer = await client.request(call, refusal=refusal, body=body)
        except Exception as problem:
            problem.host = host
            raise
    return host


# --- when all goes well ----------------------------------------------------------------------------------


def test_an_answer_comes_back_whole_and_the_connection_is_used_again():
    async def main() -> None:
        async with ScriptedHost([reply({"n": 1}), reply({"n": 2})]) as host, session(host.url + "/base/") as client:
            first = await client.request(ASK, refusal=refusal)
            second = await client.request(KEYED, refusal=refusal, path="/other?q=1", body=b"{}")
        assert (first.status, first.body, second.body) == (200, b'{"n": 1}', b'{"n": 2}')
        assert [(r.method, r.target, r.connection) for r in host.requests] == [
            ("GET", "/base/ask", 1),
            ("POST", "/base/other?q=1", 1),
        ]
        assert host.connections == 1

    asyncio.run(main())


def test_a_request_says_little_and_asks_for_no_compression():
    async def main() -> None:
        host = await talk([reply()], KEYED, b"{}")
        assert host.requests[0].names == ["host", "accept", "accept-encoding", "content-type", "content-length"]
        assert host.requests[0].headers["accept-encoding"] == "identity"
        assert host.requests[0].body == b"{}"

    asyncio.run(main())


def test_progress_is_told_bytes_and_total():
    async def main() -> None:
        heard = []
        async with ScriptedHost([reply(b"{" + b" " * 500_000 + b"}")]) as host, session(host.url) as client:
            await client.request(ASK, refusal=refusal, progress=lambda now, total: heard.append((now, total)))
        assert heard[-1] == (500_002, 500_002)
        assert heard == sorted(heard)

    asyncio.run(main())


def test_the_environment_and_the_hosts_cookies_change_nothing(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")

    async def main() -> None:
        async with ScriptedHost([reply(set_cookie="a=b")]) as host, session(host.url) as client:
            await client.request(ASK, refusal=refusal)
            await client.request(ASK, refusal=refusal)
        assert "cookie" not in host.requests[1].headers

    asyncio.run(main())


# --- no connection ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", [ASK, KEYED, ONCE])
def test_a_refused_connection_is_unreachable_and_tried_again_for_any_call(call):
    async def main() -> float:
        loop = asyncio.get_running_loop()
        with socket.socket() as taken:  # bound and not listening: it refuses, and nobody else can have it
            taken.bind(("127.0.0.1", 0))
            began = loop.time()
            async with session(f"http://127.0.0.1:{taken.getsockname()[1]}") as client:
                with pytest.raises(HostUnreachable, match="cannot be connected to"):
                    await client.request(call, refusal=refusal)
            return loop.time() - began

    assert run(main) == pytest.approx(0.5 + 1 + 2, abs=0.4)


def test_a_whole_call_that_ends_while_connecting_is_certainly_not_in_doubt():
    class Black(httpx.AsyncBaseTransport):
        """Each phase of connecting takes all the time that it is given."""

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            times = request.extensions["timeout"]
            await asyncio.sleep(times["pool"] + 2 * times["connect"])
            raise httpx.ConnectTimeout("")

    async def main() -> None:
        settings = HostSettings(url="http://127.0.0.1", connect_timeout=100, call_timeout=40, attempts=20)
        began = asyncio.get_running_loop().time()
        async with HostSession(settings, random=most, transport=Black()) as client:
            with pytest.raises(HostUnreachable, match="in time"):
                await client.request(KEYED, refusal=refusal)
        assert asyncio.get_running_loop().time() - began <= 40

    run(main)


def test_plain_http_leaves_this_machine_never():
    with pytest.raises(SettingsError, match="plain http"):
        session("http://192.0.2.7")


def test_a_url_that_cannot_be_one():
    with pytest.raises(SettingsError):
        session("https://999.1.1.1")


# --- the request has left, and no answer -----------------------------------------------------------------

CUTS = {
    "at once": Cut(),
    "in the headers": Cut(b"HTTP/1.1 200 OK\r\ncontent-le"),
    "in the body": Cut(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"),
    "in a chunk": Cut(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nff\r\n{"),
    "no HTTP": Cut(b"\x16\x03\x01 hello\r\n\r\n"),
    "endless headers": Cut(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 30_000),
    "silence": HANG,
    "a drip in the body": Drip(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{", every=4),
    "a drip slower than we read": Drip(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{", every=100),
    "500, no error body": reply(b"<html>", 500),
    "502, empty": reply(b"", 502),
}


@pytest.mark.parametrize("action", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize(("call", "attempts"), [(ASK, 3), (KEYED, 3), (ONCE, 1)])
def test_silence_is_silence_and_repeated_only_where_that_is_safe(action, call, attempts):
    async def main() -> None:
        with pytest.raises(HostSilent) as caught:
            await talk([action], call, b"{}", attempts=3, read_timeout=5, call_timeout=60)
        assert len(caught.value.host.requests) == (1 if _never_ends(action) else attempts)
        assert caught.value.__cause__ is None

    run(main)


def _never_ends(action: object) -> bool:
    """Drips faster than the read timeout: the deadline of the whole call ends it."""
    return isinstance(action, Drip) and action.every < 5


def test_the_whole_call_has_a_deadline():
    async def main() -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(HostSilent, match="in time"):
            await talk([HANG], ASK, attempts=20, read_timeout=15, call_timeout=40)
        assert loop.time() - began <= 40.5

    run(main)


def test_a_repeat_that_works_is_an_answer():
    async def main() -> None:
        host = await talk([Cut(), error(500, "5000"), reply({"ok": 1})], KEYED, b'{"same":1}')
        assert host.answer.body == b'{"ok": 1}'
        assert [r.body for r in host.requests] == [b'{"same":1}'] * 3

    run(main)


def test_no_connection_after_a_silence_is_still_a_silence():
    async def main() -> None:
        with pytest.raises(HostSilent, match="an earlier attempt may have got through"):
            await talk([Then(Cut())], KEYED, b"{}")
        with pytest.raises(HostUnreachable):
            await talk([Then(Cut())], ASK)

    run(main)


# --- an answer that is none ------------------------------------------------------------------------------

STRANGE = {
    "HTML": reply(b"<html><body>Welcome to the Cafe</body></html>", content_type="text/html"),
    "empty": reply(b""),
    "a list": reply(b"[]"),
    "204": reply(b"", 204),
    "201": reply(b"{}", 201),
    "a redirect": reply(b"", 302, location="http://127.0.0.1:9/elsewhere"),
    "404 of a proxy": reply(b"not here", 404),
    "too large, declared": reply(content_length=str(8 * 1024 * 1024 + 1)),
    "gzip": reply(gzip.compress(b"{" + b" " * 1_000_000 + b"}"), content_encoding="gzip"),
    "gzip in an error": reply(gzip.compress(b"{}"), 500, content_encoding="gzip"),
}


@pytest.mark.parametrize("answer", STRANGE.values(), ids=STRANGE)
def test_what_is_not_the_protocol_is_silence_and_not_repeated(answer):
    async def main() -> None:
        with pytest.raises(HostSilent) as caught:
            await talk([answer], ASK)
        assert len(caught.value.host.requests) == 1
        assert "Cafe" not in str(caught.value)

    run(main)


def test_an_answer_without_end_is_left_at_the_limit(monkeypatch):
    monkeypatch.setattr(http, "BODY_LIMIT", 100_000)
    chunk = b"10000\r\n" + b"{" * 0x10000 + b"\r\n"

    async def main() -> None:
        endless = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunk * 50
        with pytest.raises(HostSilent, match="more than 100000 bytes"):
            await talk([endless], ASK)

    run(main)


# --- refusals --------------------------------------------------------------------------------------------


def test_a_refusal_is_certain_and_not_repeated():
    async def main() -> None:
        with pytest.raises(HostRefused) as caught:
            await talk([error(422, "4220", "amount of zero")], KEYED, b"{}")
        refused = caught.value
        assert (refused.status, refused.code, refused.host_message, refused.trace_id) == (
            422,
            "4220",
            "amount of zero",
            "t-1",
        )
        assert not refused.in_doubt
        assert len(refused.host.requests) == 1

    run(main)


@pytest.mark.parametrize(("call", "attempts", "doubt"), [(ASK, 4, False), (KEYED, 4, True), (ONCE, 1, True)])
def test_a_500_with_its_error_body_may_have_acted(call, attempts, doubt):
    async def main() -> None:
        with pytest.raises(HostRefused) as caught:
            await talk([error(500, "5000")], call, b"{}")
        assert (caught.value.in_doubt, len(caught.value.host.requests)) == (doubt, attempts)

    run(main)


def test_a_refusal_after_a_silence_is_in_doubt():
    async def main() -> None:
        with pytest.raises(HostRefused) as caught:
            await talk([Cut(), error(401, "4011")], KEYED, b"{}")
        assert caught.value.in_doubt

    run(main)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after": "7"}, 7),
        ({"retry_after": "Wed, 21 Oct 2015 07:28:09 GMT", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 9),
        ({}, 0.5),
        ({"retry_after": "soon"}, 0.5),
    ],
)
@pytest.mark.parametrize("call", [ASK, ONCE])
def test_too_many_requests_waits_as_long_as_the_host_asks(headers, seconds, call):
    async def main() -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        host = await talk([error(429, "4290", **headers), reply()], call)
        assert len(host.requests) == 2
        assert loop.time() - began == pytest.approx(seconds, abs=0.4)

    run(main)


@pytest.mark.parametrize("asked", ["61", "39", "999999999999"])
def test_a_wait_beyond_the_deadline_or_the_bound_is_told_at_once(asked):
    async def main() -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(HostRefused) as caught:
            await talk([error(429, "4290", retry_after=asked)], ASK, call_timeout=38)
        assert caught.value.retry_after is not None
        assert caught.value.retry_after >= 39
        assert not caught.value.in_doubt
        assert loop.time() - began < 1

    run(main)


def test_a_gateways_bare_429_is_a_refusal_too():
    async def main() -> None:
        with pytest.raises(HostRefused, match="too many requests") as caught:
            await talk([reply(b"slow down", 429, retry_after="1")], ONCE, attempts=2)
        assert (caught.value.retry_after, len(caught.value.host.requests)) == (1.0, 2)

    run(main)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)), st.text(max_size=40))
def test_retry_after_reads_anything(text, date):
    seconds = retry_after({"retry-after": text, "date": date})
    assert seconds is None or seconds >= 0


@given(st.sampled_from(["Mon", ""]), st.integers(-5, 10**12), st.integers(), st.integers(), st.text(max_size=6))
def test_retry_after_reads_strange_dates(day, number, year, hour, zone):
    text = f"{day}, {number} Oct {year} {hour}:28:00 {zone}"
    known = "Wed, 21 Oct 2015 07:28:00 GMT"
    for headers in ({"retry-after": text, "date": known}, {"retry-after": known, "date": text}):
        seconds = retry_after(headers)
        assert seconds is None or seconds >= 0


# --- secrets ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "action",
    [
        error(401, "4010", f"token {CANARY} unknown"),
        error(400, "4000", f"bad header Authorization: Bearer {CANARY}"),
        reply(CANARY.encode()),
        reply(b"", 302, location=f"https://example.invalid/{CANARY}"),
        Cut(f"HTTP/1.1 200 OK\r\n{CANARY}\r\n\r\n".encode()),
        Cut(f"{CANARY} HTTP\r\n\r\n".encode()),
        Cut(),
        HANG,
    ],
)
def test_no_error_carries_the_token(action):
    async def main() -> None:
        async with ScriptedHost([action]) as host, session(host.url, attempts=1) as client:
            with pytest.raises((HostRefused, HostSilent)) as caught:
                await client.request(ASK, refusal=refusal, auth=BearerAuth(CANARY), body=CANARY.encode())
        assert host.requests[0].headers["authorization"] == f"Bearer {CANARY}"
        told = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
        assert CANARY not in told

    run(main)


def test_a_token_that_no_header_can_carry_is_not_quoted():
    async def main() -> None:
        async with ScriptedHost([reply()]) as host, session(host.url, attempts=1) as client:
            with pytest.raises(HostSilent) as caught:
                await client.request(ASK, refusal=refusal, auth=BearerAuth(f"{CANARY}\r\nX: y"))
        assert CANARY not in "".join(traceback.format_exception(caught.value))
        assert host.requests == []

    run(main)
