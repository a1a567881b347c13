"""The ASGI application: which path is which call, and what happens around each of them.

A call's way: read (bounded), a fault chosen, one transaction of the ledger in which it is judged, the record, the
answer. Nothing awaits between the judging and the commit, so two requests are never judged at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from urllib.parse import parse_qsl

import msgspec
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Route, Router
from starlette.types import Receive, Scope, Send

from sim.faults import AnyRule, Faults, kind
from sim.faults.wire import Delay, ErrorStatus
from sim.host import control, viopay_activation, viopay_payments
from sim.host.call_names import CALLS
from sim.host.calls import Answer, Call, plain_answer
from sim.host.config import HostConfig
from sim.host.host import Host
from sim.host.hsm import Hsm
from sim.host.ledger import Ledger, to_ms
from sim.host.peek import peek_device, peek_payment
from sim.host.refusals import Refusal, Why, default_code, error_body
from sim.host.troubles import disturb, restore
from sim.host.wire import CHOSEN, BodyTooLarge, read_body, send_body, send_under
from terminal.clock import Now, Random

_log = logging.getLogger(__name__)

Handler = Callable[[Host, Call], Answer]

_MAX_QUERY = 16


def health(_host: Host, _call: Call) -> Answer:
    """``GET /health/live``."""
    return plain_answer({"status": "ok", "service": "vi-backoffice-api"})


HANDLERS: dict[str, Handler] = {
    "charge": viopay_payments.charge,
    "refund": viopay_payments.refund,
    "cancel": viopay_payments.cancel,
    "reverse": viopay_payments.cancel,
    "charge_lookup": viopay_payments.charge_lookup,
    "charge_search": viopay_payments.charge_search,
    "refund_lookup": viopay_payments.refund_lookup,
    "heartbeat": viopay_payments.heartbeat,
    "bootstrap": viopay_activation.bootstrap,
    "pairing_code": viopay_activation.pairing_code,
    "status": viopay_activation.status,
    "claim": viopay_activation.claim,
    "attest": viopay_activation.attest,
    "keys": viopay_activation.keys,
    "config": viopay_activation.config,
    "terminal_parameters": viopay_activation.terminal_parameters,
    "activate": viopay_activation.activate,
    "client_session": viopay_activation.client_session,
    "auth_token": viopay_activation.client_session,
    "session_initiate": viopay_activation.session_initiate,
    "health": health,
}


class HostApp:
    """The host as an ASGI application. ``host`` and ``faults`` are for whoever runs it in the same process."""

    def __init__(self, host: Host, *, now: Now, faults: Faults) -> None:
        self.host, self.now, self.faults = host, now, faults
        routes: list[BaseRoute] = []
        for name, (method, path) in CALLS.items():
            routes.append(Route(path, _Protocol(self, name), methods=[method]))
        for method, path, handler in self._control():
            routes.append(Route(path, _Control(self, handler), methods=[method]))
        self._router = Router(routes, redirect_slashes=False)

    def _control(self) -> Iterable[tuple[str, str, Callable[[Call], Answer]]]:
        def of_host(handler: Handler) -> Callable[[Call], Answer]:
            return lambda call: handler(self.host, call)

        yield "POST", "/sim/devices", of_host(control.provision)
        yield "POST", "/sim/devices/{id}", of_host(control.change_device)
        yield "GET", "/sim/devices/{id}", of_host(control.show_device)
        yield "GET", "/sim/ledger", of_host(control.ledger)
        yield "POST", "/sim/settle", of_host(control.settle)
        yield "GET", "/sim/exchanges", of_host(control.exchanges)
        yield "POST", "/sim/faults", lambda call: control.set_faults(self.faults, call)
        yield "GET", "/sim/faults", lambda call: control.show_faults(self.faults, call)
        yield "DELETE", "/sim/faults", lambda call: control.clear_faults(self.faults, call)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI. Where the server cannot close a connection, a fault that wants it closed raises ConnectionCut."""
        scope["app"] = self  # so that the router raises what it does not know, and leaves the words to us
        try:
            await self._router(scope, receive, send)
        except HTTPException as error:
            why, words = (Why.METHOD, "method") if error.status_code == Why.METHOD.status else (Why.UNKNOWN, "path")
            answer = self.refused(Refusal(why, f"There is no such {words} here."))
            await send_body(send, answer.status, answer.body)

    def fault_for(self, name: str | None, call: Callable[[], Call], *, network: bool = False) -> AnyRule | None:
        """The fault that a call of that name meets; ``call`` is asked for only where a rule wants more of it.

        ``network``: whether whoever asks can do what a network does.
        """
        if not self.faults:
            return None
        return self.faults.choose(
            name, lambda: self.name_device(call()), lambda: peek_payment(self.host, call()), network=network
        )

    def name_device(self, call: Call) -> str | None:
        """Note whose call it says it is, before anything of it is proved; the device's id."""
        device = peek_device(self.host, call)
        if device is not None:
            call.device_id, call.terminal_id = device.device_id, device.terminal_id
        return call.device_id

    def judge(self, work: Callable[[], Answer]) -> Answer:
        """Run ``work`` in one transaction. A refusal is an answer, and is committed; our own mistake is a 500."""
        try:
            with self.host.ledger.transaction():
                try:
                    return work()
                except Refusal as refusal:
                    return self.refused(refusal)
        except Exception:
            return self.broken()

    def broken(self) -> Answer:
        """The answer to an exception that is being handled: nothing of it but a line in the log."""
        _log.exception("a request failed by our own mistake, and changed nothing")
        return self.refused(Refusal(Why.BROKEN, "The host has failed."))

    def refused(self, refusal: Refusal) -> Answer:
        """The error body of a refusal."""
        body = error_body(refusal.why.code, refusal.message, self.host.random, refusal.details)
        return Answer(msgspec.json.encode(body), body, refusal.why.status, retry_after=refusal.retry_after)


class _Endpoint:
    """What protocol and control calls have in common: reading a request."""

    name: str | None = None

    def __init__(self, app: HostApp) -> None:
        self._app = app

    async def _read(self, scope: Scope, receive: Receive, limit: int) -> Call | None:
        """The request; None when the client went away; Refusal where it is too large."""
        told = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]
        headers = dict(told)
        repeated: frozenset[str] = frozenset()
        if len(headers) < len(told):
            repeated = frozenset(name for name, times in Counter(name for name, _ in told).items() if times > 1)
        try:
            body = await read_body(scope, receive, limit)
        except BodyTooLarge:
            raise Refusal(Why.MALFORMED, f"The body is larger than {limit} bytes.") from None
        if body is None:
            return None
        return Call(
            name=self.name,
            method=scope["method"],
            path=scope["path"],
            now=self._app.now(),
            headers=headers,
            repeated=repeated,
            query=_query(scope.get("query_string", b"")),
            id=scope["path_params"].get("id", ""),
            body=body,
        )


class _Control(_Endpoint):
    """A call under ``/sim/``: from this machine only, never a fault, never in the record."""

    def __init__(self, app: HostApp, handler: Callable[[Call], Answer]) -> None:
        super().__init__(app)
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        try:
            control.check_loopback(scope)
            call = await self._read(scope, receive, app.host.config.max_control_body)
        except Refusal as refusal:
            answer = app.refused(refusal)
        else:
            if call is None:
                return
            answer = app.judge(lambda: self._handler(call))
        await send_body(send, answer.status, answer.body, retry_after=answer.retry_after)


class _Protocol(_Endpoint):
    """A call of the VioPay POS API, with the faults around it."""

    def __init__(self, app: HostApp, name: str) -> None:
        super().__init__(app)
        self.name = name
        self._handler = HANDLERS[name]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        try:
            call = await self._read(scope, receive, app.host.config.max_body)
        except Refusal as refusal:
            answer = app.refused(refusal)
            await send_body(send, answer.status, answer.body)
            return
        if call is None:
            return
        try:
            rule = self._rule(call, scope)
        except Exception:
            answer = app.broken()
            await send_body(send, answer.status, answer.body)
            return
        if isinstance(rule, Delay):
            await asyncio.sleep(rule.seconds)
            call.now = app.now()
        answer = self._act(call, rule)
        if answer.not_before is not None and answer.not_before > call.now:
            await asyncio.sleep((answer.not_before - call.now).total_seconds())
        if rule is None:
            await send_body(send, answer.status, answer.body, retry_after=answer.retry_after)
        else:
            await self._send_under(rule, answer, scope, receive, send)

    def _rule(self, call: Call, scope: Scope) -> AnyRule | None:
        """The fault that this call meets: the network's choice where there is a simulated one, else ours."""
        extensions = scope.get("extensions", {})
        rule: AnyRule | None
        rule = extensions[CHOSEN] if CHOSEN in extensions else self._app.fault_for(call.name, lambda: call)
        if rule is not None:
            self._app.name_device(call)
        return rule

    def _act(self, call: Call, rule: AnyRule | None) -> Answer:
        """Judge the call and record it. Where the rule keeps it from the host, nothing is judged."""
        app = self._app
        if app.faults.revoked_until:
            with app.host.ledger.transaction():
                restore(app.host, app.faults, call)
        if rule is None:
            answer = app.judge(lambda: self._judge(call))
            app.host.exchanges.add(call, answer)
            return answer
        if not rule.reaches_host:
            app.host.exchanges.add(call, None, kind(rule))
            return Answer(b"", None)
        call.fault = rule
        with app.host.ledger.transaction():
            disturb(app.host, app.faults, call, rule)
        answer = app.judge(lambda: self._judge(call))
        app.host.exchanges.add(call, answer, kind(rule))
        return answer

    def _judge(self, call: Call) -> Answer:
        host = self._app.host
        # By the true time: a fault that moves the clock of one call must not make the host forget.
        host.ledger.forget(to_ms(self._app.now()), host.config.idempotency_life)
        return self._handler(host, call)

    async def _send_under(self, rule: AnyRule, answer: Answer, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        body = answer.body
        if isinstance(rule, ErrorStatus):
            code = rule.code or default_code(rule.status)
            body = msgspec.json.encode(error_body(code, rule.message, app.host.random))
        await send_under(
            rule, scope, receive, send, status=answer.status, body=body, retry_after=answer.retry_after,
            random=app.faults.random,
        )  # fmt: skip


def _query(raw: bytes) -> dict[str, str]:
    """The query's fields, the last one where a name comes twice; empty where there are too many."""
    if not raw:
        return {}
    try:
        return dict(parse_qsl(raw.decode("latin-1"), max_num_fields=_MAX_QUERY))
    except ValueError:
        return {}


def create_app(
    ledger: Ledger,
    *,
    hsm: Hsm,
    now: Now,
    random: Random,
    faults: Faults | None = None,
    config: HostConfig | None = None,
) -> HostApp:
    """A host over that ledger. Without ``faults`` nothing goes wrong, until ``POST /sim/faults`` says so."""
    host = Host(ledger, hsm=hsm, random=random, config=config or HostConfig())
    return HostApp(host, now=now, faults=faults if faults is not None else Faults(random))
