"""A day in the life of three terminals and their host, with canaries: see ``test_canary``."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hw.pan import luhn_digit
from hw.stripe import TRACK_1, TRACK_2, record
from sim.reader.magstripe import on_pty
from sim.reader.stripes import CARDS, Stripe
from terminal.clock import system_random
from terminal.crypto.kcv import aes_kcv
from terminal.crypto.vault import Passphrase
from terminal.home import parse_document, provision
from tests.e2e.canaries import Canary
from tests.e2e.hosted import TILL, call, pair_beforehand
from tests.e2e.wire import Wire
from tests.terminal.cli.typist import Typist

ROOT = Path(__file__).parents[2]
FAILING = [sys.executable, str(ROOT / "tests/e2e/failing.py")]
DEADLINE = 60.0

PAN = "467158203946175" + luhn_digit("467158203946175")
TYPED_PAN = "5412753908164" + "27" + luhn_digit("541275390816427")
DISCRETIONARY = "8306194725518"
HOLDER = "KANARIENVOGEL/ZYTA"
PIN = "907182635417"
PASSPHRASE = "sepia kestrel counts 47 umbrellas"
TYPED_PASSPHRASE = "quartz heron under 93 lanterns"
WRONG = "velvet magpie without 58 spoons"
COMPONENT = hashlib.sha256(b"the component of a canary").digest()
STRIPE = Stripe(
    "canary",
    PAN,
    {
        1: record(TRACK_1, f"B{PAN}^{HOLDER}^2812201{DISCRETIONARY}"),
        2: record(TRACK_2, f"{PAN}=2812201{DISCRETIONARY}"),
    },
)
KNOWN = [
    Canary("card number", PAN.encode()),
    Canary("typed card number", TYPED_PAN.encode()),
    Canary("number of the card of till swipe", CARDS["visa"].pan.encode()),
    Canary("discretionary data", DISCRETIONARY.encode()),
    Canary("cardholder", HOLDER.encode()),
    Canary("PIN", PIN.encode()),
    Canary("clear PIN block", bytes.fromhex(f"4C{PIN}AA"), whole=True),
    Canary("passphrase", PASSPHRASE.encode()),
    Canary("typed passphrase", TYPED_PASSPHRASE.encode()),
    Canary("mistyped passphrase", WRONG.encode()),
    Canary("ZMK component 1", COMPONENT),
]
"""Known before the run. The keys, tokens and signatures join them after it."""

FAULTS = [
    {"do": "status", "status": 500},
    {"do": "html", "status": 502},
    {"do": "cut"},
    {"do": "corrupt", "at": 40},
    {"do": "wrong_key"},
    {"do": "drop_answer"},
]

CHARGE_POINTS = [  # what raises, one after another, in a charge by hand with a PIN; None: where it is to end well
    "terminal.cli.pay:_typed",
    "terminal.crypto.vault:Passphrase.cipher",
    "terminal.crypto.vault:Vault.open",
    "terminal.terminal:Terminal.charge",
    "terminal.crypto.keystore:Keystore.pin_block",
    "terminal.crypto.pinblock:iso4_pin_block",
    "terminal.crypto.keystore:Keystore.seal_card",
    "terminal.crypto.envelope:seal",
    "terminal.hosts.viopay_wire:charge_request",
    "terminal.journal:Journal.begin",
    "terminal.hosts.auth:TerminalAuth.auth_flow",
    "terminal.crypto.signature:hmac_sha256",
    "httpx:AsyncHTTPTransport.handle_async_request",
    "terminal.crypto.envelope:open_envelope",
    "terminal.fit:check_fit",
    "terminal.journal:Journal.record",
    "terminal.cli.screen:PlainScreen.event",
]
SWIPE_POINTS = ["hw.link:DescriptorLink.read", "hw.magstripe:Framer.feed", "hw.stripe:read_card"]
ACTIVATION_POINTS = [
    "terminal.fetching:Fetching.lasting_token",
    "terminal.crypto.keyblock:unwrap",
    "terminal.crypto.policy:check",
    "terminal.crypto.vault_file:replace",
]
QUIET_POINTS = ["terminal.crypto.keystore:Keystore.pin_block", "terminal.exchange:Exchange.first"]
"""Without ``-v`` and ``TILL_LOG``: what asyncio says then, Python prints by itself."""
HOST_POINTS = [
    "sim.host.hsm:Hsm.open_key_set",
    "sim.host.requests:open_request",
    "sim.host.ledger:Ledger.add_charge",
]


class Day:
    """Everything that a run writes is below ``folder``; what is heard on the wire is not."""

    def __init__(self, folder):
        self.folder = folder
        for name in ("out", "cwd", "tmp", "logs", "locals"):
            (folder / name).mkdir(exist_ok=True)

    def environment(self, name, **more):
        kept = {key: value for key, value in os.environ.items() if not key.startswith("TILL_")}
        return kept | {
            "PYTHONPATH": str(ROOT),
            "PYTHONFAULTHANDLER": "1",
            "PYTHONASYNCIODEBUG": "1",
            "HOME": str(self.folder / "cwd"),
            "TMPDIR": str(self.folder / "tmp"),
            "TILL_LOG": str(self.folder / "logs" / f"{name}.log"),
            "CANARY_RAW": str(self.folder / "logs" / f"{name}.raw"),
            "CANARY_LOCALS": str(self.folder / "locals" / name),
            "CANARY_NOW": str(self.now(name)),
            "CANARY_SAID": " ".join([PAN, PIN, PASSPHRASE, COMPONENT.hex(), base64.b64encode(COMPONENT).decode()]),
        } | more  # fmt: skip

    def now(self, name):
        """The file that says which function of these processes raises."""
        return self.folder / "locals" / f"{name}.now"

    def start(self, name, command, *, pass_fds=(), stdout=None, **more):
        """A process whose output goes to files; its command line is kept too."""
        out, err = ((self.folder / "out" / f"{name}.{end}").open("ab") for end in ("out", "err"))
        with out, err:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=stdout or out,
                stderr=err,
                cwd=self.folder / "cwd",
                env=self.environment(name, **more),
                pass_fds=pass_fds,
            )
        with (self.folder / "out" / f"{name}.argv").open("ab") as argv:
            argv.write(Path(f"/proc/{process.pid}/cmdline").read_bytes() + b"\n")
        return process

    def first_line(self, name):
        """What such a process says first; waits for it."""
        path = self.folder / "out" / f"{name}.out"
        until = time.monotonic() + DEADLINE
        while b"\n" not in (said := path.read_bytes()):
            assert time.monotonic() < until, name
            time.sleep(0.02)
        return said.partition(b"\n")[0]

    def said(self, name):
        """What these processes have written to stdout and stderr."""
        return "".join((self.folder / "out" / f"{name}.{end}").read_text() for end in ("out", "err"))

    def logged(self, name):
        """Their log, filtered, and the same without the filter."""
        return [(self.folder / "logs" / f"{name}.{end}").read_text() for end in ("log", "raw")]

    def evidence(self):
        """Every file that was written, but for the host's master key and what this test keeps for itself."""
        return [
            path
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and path.name != "host-master.key" and path.parent.name != "locals"
        ]


class Till:
    """A terminal of the day, by its home; each call is a process."""

    def __init__(self, day, name, url, **more):
        self.day, self.name, self.url, self.more = day, name, url, more
        self.home = day.folder / name

    def start(self, *words, command=FAILING, **how):
        words = ["--home", str(self.home), "-v", *words]
        return self.day.start(self.name, [*command, *words], **self.more, **how)

    def __call__(self, *words, typed="", command=FAILING):
        process = self.start(*words, command=command)
        process.communicate(typed.encode(), DEADLINE)
        return process.returncode

    def once(self):
        """One try of each call, so that a failure needs no waiting."""
        path = self.home / "settings.toml"
        path.write_text(path.read_text() + "attempts = 1\n")


def document_through(folder, device):
    """A FIFO out of which the device document comes once, so that it is on no disk."""
    path = folder / f"{device['device_id']}.json"
    os.mkfifo(path)
    threading.Thread(target=path.write_text, args=(json.dumps(device),)).start()
    return str(path)


async def swiped(till, *words):
    """A charge by swipe, with the canary card on a reader of this process."""
    async with on_pty() as reader:
        charging = asyncio.create_task(asyncio.to_thread(till, "charge", *words, "--reader", reader.url))

        async def swipe():
            while True:
                await reader.line.listening()
                await reader.swipe(STRIPE)

        swiping = asyncio.create_task(swipe())
        code = await charging
        swiping.cancel()
        return code


BY_HAND = f"{PAN}\n12/28\n{PIN}\n"


def a_day_of_the_first(day, till, device, control):
    """The passphrase comes from the environment, and all goes well."""
    document = document_through(day.folder, device)
    assert till("provision", "--from", document, "--host", till.url) == 0
    pair_beforehand(control, device)
    assert till("activate") == 0
    assert asyncio.run(swiped(till, "12.50", "--reference", "swiped")) == 0
    assert till("charge", "23.00", "--manual", "--pin", "--reference", "typed", typed=BY_HAND) == 0
    assert till("refund", "--reference", "swiped", "5.00", command=TILL) == 0
    assert till("cancel", "--reference", "typed", command=TILL) == 0
    swiping = day.start("swipe", [*FAILING, "-v", "swipe", "--pty", "--at-once", "--json"])
    with ended(swiping):
        device_path = json.loads(day.first_line("swipe"))["reader"]
        assert till("charge", "3.00", "--reader", device_path, command=TILL) == 0
    for words in (["journal", "--verify"], ["journal", "--json"], ["status"], ["keys"]):
        assert till(*words, command=TILL) == 0


def a_day_of_the_second(day, till, device, control):
    """Everything is typed on a terminal: passphrase, ZMK components, card number and PIN."""
    zmk = bytes.fromhex(device["zmk"]["key"])
    other = bytes(a ^ b for a, b in zip(zmk, COMPONENT, strict=True))
    public = {name: value for name, value in device.items() if name != "zmk"}
    document = document_through(day.folder, public)
    screens = []

    def at_the_keys(*words, answers, code=0):
        environment = day.environment(till.name)
        kept = {name: environment[name] for name in environment if not name.startswith("CANARY_")}
        typist = Typist("--home", str(till.home), "-v", *words, env=kept)
        for prompt, answer in answers:
            typist.answer(prompt, answer)
        assert typist.leave() == code, typist.seen
        screens.append(typist.seen)
        (day.folder / "out" / "screens").write_text("\n".join(screens))

    ceremony = [
        ("New passphrase: ", TYPED_PASSPHRASE),
        ("The same again: ", TYPED_PASSPHRASE),
        ("Component 1 .*: ", COMPONENT.hex()[:-1]),
        ("Component 1 .*: ", COMPONENT.hex().upper()),
        ("KCV of component 1: ", aes_kcv(COMPONENT)),
        ("Component 2 .*: ", other.hex()),
        ("KCV of component 2: ", aes_kcv(other)),
        ("KCV of the whole ZMK: ", device["zmk"]["kcv"]),
    ]
    words = ["--from", document, "--host", till.url, "--zmk-components", "2"]
    at_the_keys("provision", *words, answers=ceremony)
    till.once()
    pair_beforehand(control, device)
    at_the_keys("activate", answers=[("Passphrase: ", WRONG)], code=2)
    passphrase = ("Passphrase: ", TYPED_PASSPHRASE)
    at_the_keys("activate", answers=[passphrase])
    card = [("Card number: ", TYPED_PAN), ("Expiry .*: ", "12/28"), ("PIN: ", PIN)]
    at_the_keys("charge", "8.00", "--manual", "--pin", answers=[passphrase, *card])
    wrong = TYPED_PAN[:-1] + str((int(TYPED_PAN[-1]) + 1) % 10)
    card = [("Card number: ", wrong), ("Expiry .*: ", "12/28")]
    at_the_keys("charge", "8.00", "--manual", "--pin", answers=[passphrase, *card], code=2)
    at_the_keys("keys", answers=[passphrase])
    return other


def a_day_of_the_third(day, till, wire, device, control):
    """Everything fails: a function of every layer, the host, the process. Its vault is quick to open."""
    document = parse_document(json.dumps(device).encode())
    provision(till.home, document, till.url, Passphrase(PASSPHRASE, n=2**10), random=system_random)
    till.once()
    pair_beforehand(control, device)
    assert till("status", command=TILL) == 0
    with lives(till, [*ACTIVATION_POINTS, *CHARGE_POINTS, *SWIPE_POINTS]) as live:
        every_layer_raises(day.now(till.name), live)
        the_host_fails(live, device, control)
        the_host_raises(day.now("host"), live)
    for number, point in enumerate(QUIET_POINTS):
        day.now(till.name).write_text(point)
        words = ["--home", str(till.home), "charge", "6.00", "--manual", "--pin", "--reference", f"quiet-{number}"]
        quiet = {"TILL_LOG": "", "CANARY_RAW": "", "CANARY_POINTS": point, "CANARY_NOW": str(day.now(till.name))}
        with ended(day.start("quiet", [*FAILING, *words], **till.more | quiet)) as process:
            process.communicate(BY_HAND.encode(), DEADLINE)
    day.now(till.name).write_text("")
    a_signal_comes(till, wire, device, control)


def every_layer_raises(now, live):
    for point in [*ACTIVATION_POINTS, ""]:
        now.write_text(point)
        assert live("activate") == (70 if point else 0), point
    for number, point in enumerate(CHARGE_POINTS):
        now.write_text(point)
        code = live("charge", "6.00", "--manual", "--pin", "--reference", f"raised-{number}", typed=BY_HAND)
        assert code in (4, 70) or point == "terminal.cli.screen:PlainScreen.event", (point, code)
    for point in SWIPE_POINTS:
        now.write_text(point)
        assert asyncio.run(swiped(live, "6.00")) in (70, 5), point
    now.write_text("")


def the_host_fails(live, device, control):
    match = {"call": "charge", "device_id": device["device_id"]}
    for number, fault in enumerate(FAULTS):
        call(f"{control}/sim/faults", {"rules": [{"match": match, **fault}]})
        code = live("charge", "9.00", "--manual", "--pin", "--reference", f"fault-{number}", typed=BY_HAND)
        assert code in (0, 4), fault  # what the host made of it may be looked up at once
    call(f"{control}/sim/faults", {"rules": []})


def the_host_raises(now, live):
    for point in HOST_POINTS:
        now.write_text(point)
        assert live("charge", "6.00", "--manual", "--pin", typed=BY_HAND) == 4, point
    now.write_text("")


def a_signal_comes(till, wire, device, control):
    """In the middle of a charge, of which the host has heard."""
    match = {"call": "charge", "device_id": device["device_id"]}
    call(f"{control}/sim/faults", {"rules": [{"match": match, "do": "delay", "seconds": 60}]})
    for number in (signal.SIGKILL, signal.SIGINT, signal.SIGABRT):
        before = wire.heard.count(b"POST /pos/charge ")
        with ended(till.start("charge", "7.00", "--manual", "--pin", "--reference", f"signal-{number}")) as process:
            process.stdin.write(BY_HAND.encode())
            process.stdin.flush()
            wire.wait_for(b"POST /pos/charge ", before + 1)
            process.send_signal(number)
            assert process.wait(DEADLINE) == (130 if number == signal.SIGINT else -number)
    call(f"{control}/sim/faults", {"rules": []})
    assert till("charge", "7.00", "--reference", f"signal-{signal.SIGKILL}") == 0


@contextlib.contextmanager
def lives(till, points):
    """Many runs of `till` on one home, each a child of one process that has imported everything already."""
    read, write = os.pipe()
    process = till.day.start(
        till.name, FAILING, pass_fds=[write], CANARY_LIVES=str(write), CANARY_POINTS=",".join(points), **till.more
    )
    with ended(process), open(read) as codes:
        os.close(write)

        def live(*words, typed=""):
            line = json.dumps([["--home", str(till.home), "-v", *words], typed]) + "\n"
            process.stdin.write(line.encode())
            process.stdin.flush()
            return int(codes.readline())

        yield live


@contextlib.contextmanager
def ended(process):
    """The process, which does not outlive the block."""
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=DEADLINE)


@contextlib.contextmanager
def host_of(day):
    """The host, its stdout into a pipe until it says where it listens."""
    read, write = os.pipe()
    data = str(day.folder / "host")
    command = [*FAILING, "-v", "host", "--listen", "127.0.0.1:0", "--data", data]
    with (
        ended(day.start("host", command, stdout=write, CANARY_POINTS=",".join(HOST_POINTS))) as process,
        open(read) as said,
    ):
        os.close(write)
        yield said.readline().strip().removeprefix("listening on ")
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 0
        (day.folder / "out" / "host.out").write_text(said.read())


def lived(day):
    """Live it. The device documents, the terminals, the second ZMK component, and what was heard on the wire."""
    with host_of(day) as control:
        devices = [call(f"{control}/sim/devices", {}) for _ in range(3)]
        with Wire(control) as wire, Wire(control) as other, ThreadPoolExecutor(3) as pool:
            first = Till(day, "first", other.url, TILL_PASSPHRASE=PASSPHRASE)
            second = Till(day, "second", other.url)
            third = Till(day, "third", wire.url, TILL_PASSPHRASE=PASSPHRASE)
            days = [
                pool.submit(a_day_of_the_first, day, first, devices[0], control),
                pool.submit(a_day_of_the_second, day, second, devices[1], control),
                pool.submit(a_day_of_the_third, day, third, wire, devices[2], control),
            ]
            for each in days:
                each.result()
        for name in ("exchanges", "ledger", "faults"):
            (day.folder / "out" / name).write_text(json.dumps(call(f"{control}/sim/{name}")))
    return devices, (first, second, third), days[1].result(), wire.heard + other.heard
