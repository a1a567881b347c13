"""One session with a host over HTTP: connections, deadlines, limits, repeats, and what a failure means.

Whatever goes wrong becomes one of three errors, and they answer the only question that matters with money:

- HostUnreachable: no connection was made, so the host has certainly not acted.
- HostRefused: the host answered with its error body, and has not acted unless the error says ``in_doubt``.
- HostSilent: the request may have left and no usable answer came. A call that acts stays silent when an attempt
  may have got through and the next ones find no connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from types import TracebackType
from typing import NamedTuple, Self

import httpx

from terminal.clock import Random
from terminal.errors import HostError, HostRefused, HostSilent, HostUnreachable, SettingsError
from terminal.hosts.tls import client_context
from terminal.settings import HostSettings, check_url

BODY_LIMIT = 8 * 1024 * 1024
"""Bytes of an answer's body. The largest, terminal parameters, has some 40 KB."""
BACKOFF_FIRST = 0.5
BACKOFF_MOST = 8.0
"""Seconds: the ceiling under which a wait is drawn, first and at most (exponential backoff, full jitter)."""
RETRY_AFTER_MOST = 60.0
"""Seconds of a host's Retry-After that we wait; a longer one is reported at once."""


class Repeat(Enum):
    """May a call be sent again when the first may have got through?"""

    FREELY = auto()
    """Yes: it asks, or what it makes a second time costs nobody anything."""
    KEYED = auto()
    """Yes: it acts, and the host recognises the repeat."""
    NEVER = auto()
    """No: it acts, and would act twice or be refused the second time."""


class Call(NamedTuple):
    """One line of a host's protocol. ``path`` may have fields in braces; ``level`` names how it authenticates."""

    name: str
    method: str
    path: str
    level: str
    repeat: Repeat


class Answer(NamedTuple):
    """An answer of status 200 whose body begins like a JSON object."""

    status: int
    headers: Mapping[str, str]
    body: bytes


Refusal = Callable[[str, int, bytes, "float | None"], "HostRefused | None"]
"""Reads a host's error body: call, status, body, Retry-After in seconds; None when it is no such thing."""
Progress = Callable[[int, "int | None"], None]
"""Told the bytes of the body received so far, and how many there will be where that is known."""


Wanted = Callable[[], bool]
"""Whether a call is still to be repeated: what it asks for may not be wanted any more."""


class _Failure(NamedTuple):
    error: HostError
    acted: bool
    """The host may have acted."""
    again: bool
    """Another attempt may end better."""


class HostSession:
    """A host's connections. Use it as an async context manager, or close it with ``aclose``.

    https is always verified; plain http is for this machine alone. Requests go straight to httpx's transport: the
    client above it would follow redirects, keep cookies and read the environment, none of which a terminal may. No
    compressed answer is accepted.

    ``transport`` replaces the network; ``random`` gives the jitter. Raises SettingsError.
    """

    def __init__(
        self, settings: HostSettings, *, random: Random, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        check_url(settings.url)
        self._settings, self._random = settings, random
        self._base = settings.url.rstrip("/")
        try:
            self.host = httpx.URL(self._base).netloc.decode("ascii")
        except httpx.InvalidURL:
            raise SettingsError(f"host.url: {settings.url!r} is not an http or https URL of a host") from None
        if transport is None:
            context = client_context(settings.ca_file, settings.pins)
            transport = httpx.AsyncHTTPTransport(verify=context, trust_env=False)
        self._transport = transport
        self._urls: dict[str, httpx.URL] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    async def request(
        self,
        call: Call,
        *,
        refusal: Refusal,
        path: str | None = None,
        auth: httpx.Auth | None = None,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        progress: Progress | None = None,
        wanted: Wanted = lambda: True,
    ) -> Answer:
        """Make a call, and repeat it where that is safe and may help, within ``call_timeout``.

        ``path`` is the call's path with its fields filled in. The call is not repeated once it is not ``wanted``.
        A wait between attempts doubles its ceiling each time and is drawn anywhere below it, or is what the host
        asked for by Retry-After.

        Raises HostUnreachable, HostRefused, HostSilent, as the module says.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.call_timeout
        sent = {"Accept": "application/json", "Accept-Encoding": "identity", **(headers or {})}
        if body:
            sent["Content-Type"] = "application/json"
        doubt = False
        attempt = 1
        while True:
            came = await self._attempt(call, self._url(call, path), auth, body, sent, refusal, progress, deadline)
            if isinstance(came, Answer):
                return came
            doubt = doubt or (came.acted and call.repeat is not Repeat.FREELY)
            if not came.again or (came.acted and call.repeat is Repeat.NEVER):
                break
            wait = self._wait(came.error, attempt)
            if attempt >= self._settings.attempts or wait is None or loop.time() + wait >= deadline:
                break
            await asyncio.sleep(wait)
            if not wanted():
                break
            attempt += 1
        if doubt and isinstance(came.error, HostUnreachable):
            raise HostSilent(f"{came.error}; an earlier attempt may have got through", advice=came.error.advice)
        if isinstance(came.error, HostRefused):
            came.error.in_doubt = doubt
        raise came.error

    async def _attempt(
        self,
        call: Call,
        url: httpx.URL,
        auth: httpx.Auth | None,
        body: bytes,
        headers: Mapping[str, str],
        refusal: Refusal,
        progress: Progress | None,
        deadline: float,
    ) -> Answer | _Failure:
        request = httpx.Request(
            call.method, url, headers=headers, content=body, extensions={"timeout": self._timeouts(deadline)}
        )

        def silent(what: str, *, again: bool, advice: str = "") -> _Failure:
            return _Failure(HostSilent(f"{call.name}: {self.host} {what}", advice=advice), True, again)

        # The causes are dropped: they hold the request, and some quote its headers.
        try:
            async with asyncio.timeout_at(deadline):
                response = await self._transport.handle_async_request(_authenticated(request, auth))
                try:
                    if response.headers.get("content-encoding", "identity").lower() != "identity":
                        return silent("sent a compressed answer that nobody asked for", again=False)
                    answer = await self._read(response, progress)
                finally:
                    await response.aclose()
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            return _Failure(self._unreachable(call, error), False, True)
        except (TimeoutError, httpx.TimeoutException):
            return silent("did not answer in time", again=True)
        except httpx.HTTPError:
            return silent("broke the connection off before its answer was whole", again=True)
        if answer is None:
            return silent(f"sent an answer of more than {BODY_LIMIT} bytes", again=False)

        status = response.status_code
        if status == 200 and answer.lstrip(b" \t\r\n")[:1] == b"{":
            return Answer(status, response.headers, answer)
        if status >= 400:
            wait = retry_after(response.headers)
            refused = refusal(call.name, status, answer, wait)
            if refused is None and status == 429:  # a gateway that says no more than that
                refused = HostRefused(call.name, status, "", "too many requests", retry_after=wait)
            if refused is not None:
                return _Failure(refused, status >= 500, status >= 500 or status == 429)
        return silent(
            f"answered with status {status} and no JSON of its protocol",
            again=status >= 500,
            advice="Check host.url, and whether a proxy or a captive portal is in between.",
        )

    async def _read(self, response: httpx.Response, progress: Progress | None) -> bytes | None:
        """The body as it came; None when it is above the limit, of which no more than one read is kept."""
        length = response.headers.get("content-length", "")
        total = int(length) if length.isdecimal() else None
        if total is not None and total > BODY_LIMIT:
            return None
        received = bytearray()
        async for piece in response.aiter_raw():
            received += piece
            if len(received) > BODY_LIMIT:
                return None
            if progress is not None:
                progress(len(received), total)
        return bytes(received)

    def _url(self, call: Call, path: str | None) -> httpx.URL:
        if path is not None:
            return httpx.URL(self._base + path)
        if call.path not in self._urls:  # parsing one costs more than signing
            self._urls[call.path] = httpx.URL(self._base + call.path)
        return self._urls[call.path]

    def _timeouts(self, deadline: float) -> dict[str, float]:
        """For one attempt.

        Waiting for a connection, connecting and the TLS handshake each get at most a quarter of what is left of
        the whole call: so its deadline never falls before the request has begun to leave, and a call that ends by
        it is in doubt, while one that ends by these is certainly not.
        """
        left = deadline - asyncio.get_running_loop().time()
        connect = min(self._settings.connect_timeout, left / 4)
        read = self._settings.read_timeout
        return {"connect": connect, "pool": connect, "read": read, "write": read}

    def _unreachable(self, call: Call, error: httpx.TransportError) -> HostUnreachable:
        said = str(error)
        if "CERTIFICATE_VERIFY_FAILED" in said or "host.pins" in said:
            why, advice = (
                "is not trusted",
                "Check host.ca_file, host.pins, the device's date, and who is in between.",
            )
        elif isinstance(error, httpx.ConnectError):
            why, advice = "cannot be connected to", "Check the network, and host.url."
        else:
            why, advice = "did not take a connection in time", "Check the network, and host.url."
        detail = f" ({said[:200]})" if said.isprintable() and said else ""
        return HostUnreachable(f"{call.name}: {self.host} {why}{detail}", advice=advice)

    def _wait(self, error: HostError, attempt: int) -> float | None:
        """Seconds until the next attempt; None when the host asks for more than we wait."""
        asked = error.retry_after if isinstance(error, HostRefused) else None
        if asked is not None:
            return asked if asked <= RETRY_AFTER_MOST else None
        ceiling = min(BACKOFF_MOST, BACKOFF_FIRST * 2.0 ** (attempt - 1))
        share: float = int.from_bytes(self._random(4), "big") / 2**32
        return ceiling * share


def _authenticated(request: httpx.Request, auth: httpx.Auth | None) -> httpx.Request:
    """The request as its authentication makes it; each of ours is a flow of one request, which asks no answer."""
    return request if auth is None else next(auth.sync_auth_flow(request))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from either form of Retry-After (RFC 9110, section 10.2.3); None when there is none to be read.

    A date is taken relative to the answer's own Date, since a device's clock may be wrong.
    """
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        until, now = (_moment(headers.get(name, "")) for name in ("retry-after", "date"))
        return max(0.0, (until - now).total_seconds())
    except (ValueError, OverflowError):
        return None


def _moment(text: str) -> datetime:
    moment = parsedate_to_datetime(text)
    return moment.replace(tzinfo=moment.tzinfo or UTC)
