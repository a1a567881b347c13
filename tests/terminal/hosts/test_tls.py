"""Who may be on the other end of a connection, each against a real TLS server."""

from __future__ import annotations

import asyncio
import base64
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from terminal.errors import HostUnreachable, SettingsError
from terminal.hosts.http import Call, HostSession, Repeat
from terminal.hosts.tls import client_context, spki_pin
from terminal.hosts.viopay_refusals import refusal
from terminal.settings import HostSettings
from tests.terminal.hosts.scripted import ScriptedHost, reply

ASK = Call("ask", "POST", "/ask", "none", Repeat.FREELY)


@dataclass
class Authority:
    """A certificate authority for one test."""

    folder: Path

    def __post_init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test CA")])
        self.certificate = self._signed(self.name, self.key, ca=True)
        self.file = self.folder / "ca.pem"
        self.file.write_bytes(self.certificate.public_bytes(Encoding.PEM))

    def _signed(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, ca: bool, names=()):
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def server(self, *names: x509.GeneralName) -> tuple[ssl.SSLContext, str]:
        """A server's context, and the pin of its certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "host")])
        certificate = self._signed(subject, key, ca=False, names=names)
        file = self.folder / "server.pem"
        file.write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            + certificate.public_bytes(Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context, spki_pin(certificate)


HERE = x509.IPAddress(ip_address("127.0.0.1"))
ELSEWHERE = x509.DNSName("api.example")
OTHER_PIN = base64.b64encode(bytes(32)).decode()


def ask(tls: ssl.SSLContext, **settings: object) -> ScriptedHost:
    async def main() -> ScriptedHost:
        async with ScriptedHost([reply()], tls=tls) as host:
            told = HostSettings(url=host.url, attempts=1, **settings)  # type: ignore[arg-type]
            async with HostSession(told, random=bytes) as session:
                try:
                    await session.request(ASK, refusal=refusal, body=b"{}")
                except HostUnreachable as problem:
                    problem.host = host
                    raise
            return host

    return asyncio.run(main())


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


def test_a_host_of_our_own_authority_is_trusted(authority):
    tls, _ = authority.server(HERE)
    assert len(ask(tls, ca_file=str(authority.file)).requests) == 1


def test_a_pinned_host_is_trusted_and_one_pin_of_several_is_enough(authority):
    tls, pin = authority.server(HERE)
    assert len(ask(tls, ca_file=str(authority.file), pins=(OTHER_PIN, pin)).requests) == 1


def refused(tls: ssl.SSLContext, **settings: object) -> str:
    with pytest.raises(HostUnreachable, match="is not trusted") as caught:
        ask(tls, **settings)
    assert caught.value.host.received == 0
    assert caught.value.advice
    return str(caught.value)


def test_another_authority_is_not(authority, tmp_path):
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    tls, _ = authority.server(HERE)
    assert "certificate verify failed" in refused(tls, ca_file=str(other.file))


def test_the_systems_authorities_do_not_know_ours(authority):
    tls, _ = authority.server(HERE)
    refused(tls)


def test_our_file_replaces_the_systems_authorities(authority):
    context = client_context(str(authority.file), ())
    serials = [int(one["serialNumber"], 16) for one in context.get_ca_certs()]
    assert serials == [authority.certificate.serial_number]


def test_another_host_name_is_not(authority):
    tls, _ = authority.server(ELSEWHERE)
    assert "mismatch" in refused(tls, ca_file=str(authority.file))


def test_another_key_than_the_pinned_sees_no_byte_of_a_request(authority):
    tls, _ = authority.server(HERE)
    assert "host.pins" in refused(tls, ca_file=str(authority.file), pins=(OTHER_PIN,))


def test_a_pin_does_not_replace_the_verification(authority):
    tls, pin = authority.server(ELSEWHERE)
    refused(tls, ca_file=str(authority.file), pins=(pin,))


def test_a_host_that_speaks_no_tls_is_unreachable():
    async def main() -> None:
        async with ScriptedHost([reply()]) as host:
            settings = HostSettings(url=host.url.replace("http:", "https:"), attempts=1)
            async with HostSession(settings, random=bytes, transport=None) as session:
                with pytest.raises(HostUnreachable):
                    await session.request(ASK, refusal=refusal)
            assert host.requests == []

    async def bounded() -> None:
        async with asyncio.timeout(20):
            await main()

    asyncio.run(bounded())


def test_session_secrets_are_written_nowhere(authority, tmp_path, monkeypatch):
    log = tmp_path / "keys.log"
    monkeypatch.setenv("SSLKEYLOGFILE", str(log))
    tls, _ = authority.server(HERE)
    ask(tls, ca_file=str(authority.file))
    assert not log.exists()


@pytest.mark.parametrize("pin", ["", "nonsense", base64.b64encode(bytes(31)).decode(), "é"])
def test_a_pin_that_is_none(pin):
    with pytest.raises(SettingsError, match=r"host\.pins"):
        client_context(None, (pin,))


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_an_authority_file_that_is_none(tmp_path, content):
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError, match=r"host\.ca_file"):
        client_context(str(file), ())
