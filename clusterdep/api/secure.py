"""The side of a client over TCP: credentials, and what exactly is wrong if it does not work."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from clusterdep.api import certificates
from clusterdep.api.addresses import Access
from clusterdep.api.errors import Fault, Kind
from clusterdep.api.files import read_file, read_secret, signature

#: How long a look at what is wrong may take, seconds, for each thing it waits for.
PATIENCE = 5.0


def credentials(access: Access) -> grpc.ChannelCredentials:
    """For a channel over TLS. Raises Fault if a file cannot be used."""
    _context(access)  # says what is wrong with the files
    system = ssl.get_default_verify_paths().cafile
    ca, key, chain = (
        read_file(path, "the file") if path else None
        for path in (access.ca or (system and Path(system)), access.key, access.certificate)
    )
    channel = grpc.ssl_channel_credentials(ca, key, chain)
    if access.token_file is None:
        return channel
    token = TokenFile(access.token_file)
    token.read()
    return grpc.composite_channel_credentials(channel, grpc.metadata_call_credentials(token))


class TokenFile(grpc.AuthMetadataPlugin):
    """Shows the token in a file; one that was renewed from the next call on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: object = None
        self._token = ""

    def read(self) -> str:
        """The token. Raises Fault (CONFIG)."""
        now = signature(self._path)
        if now != self._seen:
            text = read_secret(self._path, "the token file").decode(errors="replace").strip()
            if not text or not text.isascii() or not text.isprintable() or " " in text:
                raise Fault(Kind.CONFIG, f"the token file {self._path} holds no token")
            self._token, self._seen = text, now
        return self._token

    def __call__(self, context: grpc.AuthMetadataContext, callback: Callable[..., None]) -> None:
        try:
            callback((("authorization", f"Bearer {self.read()}"),), None)
        except Fault as fault:
            callback((), fault)


def _context(access: Access) -> ssl.SSLContext:
    """The same for Python's own TLS, which says more. Raises Fault (CONFIG)."""
    try:
        context = ssl.create_default_context(cafile=access.ca and str(access.ca))
    except OSError as error:
        read_file(access.ca or Path(), "the CA's certificate")
        what = f"the CA's certificate {access.ca} holds no certificate in PEM"
        raise Fault(Kind.CONFIG, what) from error
    context.set_alpn_protocols(["h2"])
    if (access.certificate is None) != (access.key is None):
        raise Fault(
            Kind.CONFIG,
            "a client needs its certificate and its key, and only one is named",
            "name both, with --cert FILE and --key FILE",
        )
    if access.certificate and access.key:
        certificates.read_chain(access.certificate, "the certificate")
        read_secret(access.key, "the private key")
        try:
            context.load_cert_chain(access.certificate, access.key, password="")
        except (ssl.SSLError, ValueError) as error:
            what = f"the key {access.key} does not belong to the certificate {access.certificate}"
            raise Fault(Kind.CONFIG, f"{what}, or is none") from error
    return context


def diagnose(target: str, tls: bool, access: Access) -> Fault | None:
    """Connects to HOST:PORT by hand, and says what keeps a client from it; None: nothing seen.

    Blocks, for some seconds at most.
    """
    host, _, port = target.rpartition(":")
    host = host.strip("[]")
    try:
        with socket.create_connection((host, int(port)), PATIENCE) as connection:
            if tls:
                return _over_tls(connection, host, target, access)
            return _in_plaintext(connection, target)
    except socket.gaierror as error:
        return Fault(Kind.UNAVAILABLE, f"there is no machine called {host}: {error.strerror}")
    except OSError as error:
        why = error.strerror or str(error)
        return Fault(
            Kind.UNAVAILABLE,
            f"nothing answers at {target}: {why}",
            "start the daemon, and have it listen there: 'listen' in its configuration",
        )


def _over_tls(connection: socket.socket, host: str, target: str, access: Access) -> Fault | None:
    own: x509.Certificate | None = None
    if access.certificate is not None:
        own = certificates.read_chain(access.certificate, "the certificate")[0]
    try:
        with _context(access).wrap_socket(connection, server_hostname=host) as wrapped:
            # A daemon that refuses our certificate closes only now; else it speaks first.
            if wrapped.recv(1):
                return None
    except ssl.SSLCertVerificationError as error:
        return _not_believed(error, host, target, access)
    except ssl.SSLError as error:
        if error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNEXPECTED_EOF_WHILE_READING"):
            return Fault(
                Kind.CONFIG,
                f"what serves at {target} does not speak TLS",
                f"if it is meant to be so, name it plaintext:{target}",
            )
        return _refused(target, access, own) if "ALERT" in (error.reason or "") else None
    except TimeoutError:
        return Fault(Kind.UNAVAILABLE, f"what serves at {target} says nothing")
    except OSError:
        pass
    return _refused(target, access, own)


def _not_believed(
    error: ssl.SSLCertVerificationError, host: str, target: str, access: Access
) -> Fault:
    """The daemon's certificate is not accepted."""
    whose = f"the certificate of the daemon at {target}"
    signer = f"the CA in {access.ca}" if access.ca else "a CA this program knows"
    match error.verify_code:
        case 9:
            why, remedy = "is not valid yet", "see whether the clocks of both machines are right"
        case 10:
            why, remedy = "has expired", "renew it there: 'clusterdep cert issue NAME --renew'"
        case 62 | 64:
            why, remedy = (
                f"is not for {host}",
                f"use a name it has, or issue it with '--host {host}'",
            )
        case _:
            why, remedy = (
                f"was not signed by {signer} ({error.verify_message})",
                "name the right CA with --ca FILE",
            )
    return Fault(Kind.UNAUTHENTICATED, f"{whose} {why}", remedy)


def _refused(target: str, access: Access, own: x509.Certificate | None) -> Fault:
    """The daemon closed after the handshake: it did not like our certificate."""
    if own is None:
        return Fault(
            Kind.UNAUTHENTICATED,
            f"the daemon at {target} wants a certificate, and none was shown",
            "name one with --cert FILE and --key FILE: 'clusterdep cert issue NAME --role ROLE'",
        )
    shown = f"the certificate {access.certificate} ({certificates.name_of(own)})"
    if wrong := certificates.validity(own, time.time()):
        remedy = "renew it: 'clusterdep cert issue NAME --renew'"
        return Fault(Kind.UNAUTHENTICATED, f"{shown} {wrong}", remedy)
    if not _is_for_clients(own):
        remedy = "issue one with 'clusterdep cert issue NAME --role ROLE'"
        return Fault(Kind.UNAUTHENTICATED, f"{shown} is not one of a client", remedy)
    issuer = own.issuer.rfc4514_string()
    return Fault(
        Kind.UNAUTHENTICATED,
        f"the daemon at {target} does not take {shown}, which was issued by {issuer}",
        "issue one with the CA that is its tls_client_ca",
    )


def _is_for_clients(own: x509.Certificate) -> bool:
    try:
        usage = own.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return ExtendedKeyUsageOID.CLIENT_AUTH in usage


def _in_plaintext(connection: socket.socket, target: str) -> Fault | None:
    """Whether what was asked without TLS speaks it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        with context.wrap_socket(connection):
            return Fault(
                Kind.CONFIG, f"what serves at {target} speaks TLS", f"name it {target}, and --ca"
            )
    except OSError:
        return None
