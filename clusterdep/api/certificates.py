"""The certificates of a daemon: what it shows, whom it takes, and who is revoked.

All files are looked at again whenever they have changed: a renewed certificate is shown
to the next client that connects, and connections that stand go on.
"""

from __future__ import annotations

import datetime
import logging
import re
import threading
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.hazmat.primitives.serialization import load_pem_private_key as load_key
from cryptography.x509.oid import NameOID

from clusterdep.api.access import Certificate, role_of
from clusterdep.api.errors import Fault, Kind
from clusterdep.api.files import Signature, read_file, read_secret, signature
from clusterdep.api.ports import Ports

log = logging.getLogger(__name__)

#: Before this time is left of the certificate that is shown, it is said in the log, seconds.
WARN_SECONDS = 14 * 86400.0


def read_chain(path: Path, what: str) -> list[x509.Certificate]:
    """The certificates in a file, at least one. Raises Fault (CONFIG)."""
    try:
        return x509.load_pem_x509_certificates(read_file(path, what))
    except ValueError as error:
        raise Fault(Kind.CONFIG, f"{what} {path} holds no certificate in PEM") from error


def name_of(certificate: x509.Certificate) -> str:
    """Whose certificate it is, for people."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    text = str(names[0].value) if names else certificate.subject.rfc4514_string()
    return text if text.isprintable() else ascii(text)


def fingerprint_of(certificate: x509.Certificate) -> str:
    """Its SHA-256, hex."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def validity(certificate: x509.Certificate, now: float) -> str:
    """Why a certificate does not count at a time; empty: it does."""
    moment = datetime.datetime.fromtimestamp(now, datetime.UTC)
    if moment >= certificate.not_valid_after_utc:
        return f"expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    if moment < certificate.not_valid_before_utc:
        return f"is valid only from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on"
    return ""


@lru_cache(maxsize=256)
def read_certificate(pem: bytes) -> Certificate:
    """What counts of the certificate of a client."""
    found = x509.load_pem_x509_certificate(pem)
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except x509.ExtensionNotFound:
        uris = []
    return Certificate(
        name_of(found), role_of(uris), found.not_valid_after_utc.timestamp(), fingerprint_of(found)
    )


class Shown:
    """The certificate that a daemon shows, and the CA whose clients it takes."""

    def __init__(self, ports: Ports) -> None:
        """Raises Fault (CONFIG) if they cannot be used."""
        if ports.certificate is None or ports.key is None:
            raise Fault(Kind.CONFIG, "TLS needs tls_certificate and tls_key")
        self._certificate, self._key, self._ca = ports.certificate, ports.key, ports.client_ca
        self._lock = threading.Lock()
        self._generation = 0
        self._seen: Signature = ()
        self.reload()

    def reload(self) -> None:
        """Reads the files; raises Fault (CONFIG), and what was read before stays in force."""
        with self._lock:
            self._seen = signature(self._certificate, self._key, self._ca)
            content = self._read()
            self._content = content
            self._generation += 1

    def _read(self) -> tuple[bytes, bytes, bytes | None]:
        what = "tls_certificate"
        chain, own = read_file(self._certificate, what), read_chain(self._certificate, what)[0]
        key = read_secret(self._key, "tls_key")
        try:
            public = load_key(key, None).public_key()
        except (ValueError, TypeError) as error:
            raise Fault(
                Kind.CONFIG, f"tls_key {self._key} holds no private key in PEM without a password"
            ) from error
        form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        if public.public_bytes(*form) != own.public_key().public_bytes(*form):
            what = f"the key {self._key} does not belong to the certificate {self._certificate}"
            raise Fault(Kind.CONFIG, what)
        if wrong := validity(own, time.time()):
            what = f"the certificate {self._certificate} {wrong}"
            raise Fault(Kind.CONFIG, what, "renew it: 'clusterdep cert issue NAME --renew'")
        if own.not_valid_after_utc.timestamp() - time.time() < WARN_SECONDS:
            until = f"{own.not_valid_after_utc:%Y-%m-%d}"
            log.warning("the certificate %s is valid only until %s", self._certificate, until)
        ca = None
        if self._ca is not None:
            read_chain(self._ca, "tls_client_ca")
            ca = read_file(self._ca, "tls_client_ca")
        return key, chain, ca

    def credentials(self, mutual: bool) -> grpc.ServerCredentials:
        """For a place where clients need a certificate, or one where they do not."""
        first, generation = self._configuration(mutual)
        return grpc.dynamic_ssl_server_credentials(
            first, self._fetcher(mutual, generation), require_client_authentication=mutual
        )

    def _configuration(self, mutual: bool) -> tuple[grpc.ServerCertificateConfiguration, int]:
        with self._lock:
            key, chain, ca = self._content
            roots = ca if mutual else None
            made = grpc.ssl_server_certificate_configuration([(key, chain)], roots)
            return made, self._generation

    def _fetcher(self, mutual: bool, generation: int) -> Callable[[], Any]:
        """Called by a thread of gRPC before every handshake; None: nothing has changed."""
        given = generation

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            nonlocal given
            if signature(self._certificate, self._key, self._ca) != self._seen:
                try:
                    self.reload()
                    log.warning("the certificate %s was read again", self._certificate)
                except Fault as fault:
                    # Half of it is written, perhaps: the next client looks again.
                    log.error("%s; the one before is still shown", fault.what)
            if given == self._generation:
                return None
            configuration, given = self._configuration(mutual)
            return configuration

        return fetch


class Revoked:
    """A file of fingerprints of certificates that count no more, a line each."""

    def __init__(self, path: Path | None) -> None:
        """Raises Fault (CONFIG) if it cannot be read."""
        self._path = path
        self._seen = signature(path)
        self._found = self._read()

    def __call__(self) -> frozenset[str]:
        """The fingerprints, hex, as the file says now; what it said last if it cannot be read."""
        now = signature(self._path)
        if now != self._seen:
            self._seen = now
            try:
                self._found = self._read()
            except Fault as fault:
                log.error("%s; what it said before holds", fault.what)
        return self._found

    def _read(self) -> frozenset[str]:
        if self._path is None:
            return frozenset()
        found = set()
        for number, line in enumerate(read_file(self._path, "tls_revoked").splitlines(), 1):
            words = line.decode(errors="replace").partition("#")[0].split()
            print_of = words[0].replace(":", "").lower() if words else ""
            if words and not re.fullmatch(r"[0-9a-f]{64}", print_of):
                what = f"tls_revoked {self._path}:{number}: not a SHA-256 fingerprint in hex"
                raise Fault(Kind.CONFIG, what)
            found.add(print_of)
        return frozenset(found - {""})
