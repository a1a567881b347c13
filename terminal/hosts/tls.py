"""Who may be on the other end: certificates verified always, and pins where they are set.

A pin is checked inside the handshake, so that a host that does not match it sees no byte of a request.
"""

from __future__ import annotations

import base64
import hashlib
import ssl
from collections.abc import Iterable

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from terminal.errors import SettingsError


def client_context(ca_file: str | None, pins: Iterable[str]) -> ssl.SSLContext:
    """A context that verifies chain and host name, TLS 1.2 at least.

    ``ca_file`` (PEM) replaces the system's authorities. ``pins`` as in HostSettings. Raises SettingsError.

    Built from its parts, because ``ssl.create_default_context`` writes session secrets to SSLKEYLOGFILE.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file is None:
        context.load_default_certs()
    else:
        try:
            context.load_verify_locations(cafile=ca_file)
        except (OSError, ssl.SSLError):
            raise SettingsError(f"host.ca_file: {ca_file} is not a readable PEM file of certificates") from None
    wanted = tuple(_digest(pin) for pin in pins)
    if wanted:
        context.sslobject_class = _pinned(wanted)
    return context


def spki_pin(certificate: x509.Certificate) -> str:
    """Base64 SHA-256 of the certificate's SubjectPublicKeyInfo (RFC 7469, section 2.4)."""
    spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(spki).digest()).decode()


def _digest(pin: str) -> bytes:
    try:
        digest = base64.b64decode(pin, validate=True)
    except ValueError:  # and so binascii.Error
        digest = b""
    if len(digest) != hashlib.sha256().digest_size:
        raise SettingsError("host.pins: a pin is the base64 of 32 bytes")
    return digest


def _pinned(wanted: tuple[bytes, ...]) -> type[ssl.SSLObject]:
    class PinnedSSLObject(ssl.SSLObject):
        """Ends the handshake with an error unless the server's own key is one of the pins."""

        def do_handshake(self) -> None:
            super().do_handshake()
            shown = self.getpeercert(binary_form=True)
            try:
                pin = base64.b64decode(spki_pin(x509.load_der_x509_certificate(shown or b"")))
            except ValueError:  # a certificate that OpenSSL reads and cryptography does not
                pin = b""
            if pin not in wanted:
                raise ssl.SSLCertVerificationError("the server's public key is none of host.pins")

    return PinnedSSLObject
