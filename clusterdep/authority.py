"""A small certificate authority in a directory, for `clusterdep cert`.

Keys are of the curve P-256. The key of the CA is needed only to issue certificates, and may
be kept off the machines that build.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from clusterdep.api import certificates
from clusterdep.api.access import role_uri
from clusterdep.api.errors import Fault, Kind
from clusterdep.api.files import read_secret

#: Days that a CA and the certificates of it last, unless somebody says otherwise.
CA_DAYS, DAYS = 3650, 365
#: A certificate counts from a little before now on: clocks differ.
SKEW = datetime.timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a certificate is for."""

    name: str
    role: str = ""  # what its holder may; empty: nothing, it is a daemon's
    hosts: tuple[str, ...] = ()  # names and addresses under which a daemon is reached
    days: float = DAYS


class Authority:
    """The CA in a directory: ca.crt, ca.key, revoked, and the certificates it issued."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.certificate = directory / "ca.crt"
        self.key = directory / "ca.key"
        self.revoked = directory / "revoked"

    def init(self, name: str, days: float, now: datetime.datetime) -> None:
        """Makes the CA. Raises Fault if there is one."""
        _check_absent(self.key, self.certificate, self.revoked)
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _subject(name)
        usage = x509.KeyUsage(
            digital_signature=False,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        made = (
            _builder(subject, subject, key.public_key(), now, now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .sign(key, hashes.SHA256())
        )
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise _unwritable(self.directory, error) from error
        _write_new(self.key, _key_pem(key), 0o600)
        _write_new(self.certificate, made.public_bytes(Encoding.PEM), 0o644)
        _write_new(
            self.revoked, b"# SHA-256 fingerprints of certificates that count no more\n", 0o644
        )

    def issue(self, wanted: Wanted, target: Path, now: datetime.datetime, renew: bool) -> Path:
        """Makes TARGET/NAME.crt and .key; returns the certificate's path. Raises Fault.

        With `renew` they replace those that are there; without, nothing may be there.
        """
        ca, ca_key = self._load(now)
        key = ec.generate_private_key(ec.SECP256R1())
        # Nothing outlives the CA, or it would be refused for a reason nobody sees.
        until = min(now + datetime.timedelta(days=wanted.days), ca.not_valid_after_utc)
        builder = _builder(_subject(wanted.name), ca.subject, key.public_key(), now, until)
        for extension, critical in _extensions(wanted, ca_key.public_key()):
            builder = builder.add_extension(extension, critical)
        made = builder.sign(ca_key, hashes.SHA256())
        path = target / f"{wanted.name}.crt"
        key_path = target / f"{wanted.name}.key"
        if not renew:
            _check_absent(path, key_path)
        write = _replace if renew else _write_new
        write(key_path, _key_pem(key), 0o600)
        write(path, made.public_bytes(Encoding.PEM), 0o644)
        return path

    def _load(self, now: datetime.datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        if not self.certificate.exists():
            what = f"there is no CA in {self.directory}"
            raise Fault(Kind.NO_INPUT, what, "make one with 'clusterdep cert init', or name --dir")
        ca = certificates.read_chain(self.certificate, "the CA's certificate")[0]
        if wrong := certificates.validity(ca, now.timestamp()):
            raise Fault(Kind.CONFIG, f"the CA's certificate {self.certificate} {wrong}")
        try:
            key = load_pem_private_key(read_secret(self.key, "the CA's key"), None)
        except (ValueError, TypeError) as error:
            what = f"the CA's key {self.key} holds no private key in PEM"
            raise Fault(Kind.CONFIG, what) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise Fault(Kind.CONFIG, f"the CA's key {self.key} is not one of 'cert init'")
        return ca, key

    def revoke(self, what: Path, now: datetime.datetime) -> str:
        """Puts a certificate on the list of those that count no more; its fingerprint."""
        found = certificates.read_chain(what, "the certificate")[0]
        fingerprint = certificates.fingerprint_of(found)
        known = certificates.Revoked(self.revoked)()
        if fingerprint in known:
            return fingerprint
        line = f"{fingerprint}  # {certificates.name_of(found)}, {now:%Y-%m-%d %H:%M} UTC\n"
        try:
            _replace(self.revoked, self.revoked.read_bytes() + line.encode(), 0o644)
        except OSError as error:
            raise _unwritable(self.revoked, error) from error
        return fingerprint


def wanted_again(path: Path, days: float) -> Wanted:
    """What a certificate that is to be renewed is for. Raises Fault."""
    found = certificates.read_chain(path, "the certificate")[0]
    role = certificates.read_certificate(found.public_bytes(Encoding.PEM)).role
    hosts: tuple[str, ...] = ()
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        hosts = (
            *names.get_values_for_type(x509.DNSName),
            *map(str, names.get_values_for_type(x509.IPAddress)),
        )
    except x509.ExtensionNotFound:
        pass
    return Wanted(certificates.name_of(found), role, hosts, days)


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    now: datetime.datetime,
    until: datetime.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _extensions(
    wanted: Wanted, ca: ec.EllipticCurvePublicKey
) -> list[tuple[x509.ExtensionType, bool]]:
    names: list[x509.GeneralName] = [_host_name(host) for host in wanted.hosts]
    usages = []
    if wanted.hosts:
        usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
    if wanted.role:
        usages.append(ExtendedKeyUsageOID.CLIENT_AUTH)
        names.append(x509.UniformResourceIdentifier(role_uri(wanted.role)))
    return [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (x509.ExtendedKeyUsage(usages), False),
        (x509.SubjectAlternativeName(names), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(ca), False),
    ]


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        return x509.DNSName(host)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _check_absent(*paths: Path) -> None:
    """Raises Fault if one of the files is there."""
    for path in paths:
        if path.exists():
            what = f"{path} exists, and is not replaced"
            raise Fault(Kind.EXISTS, what, "remove it, or name another place")


def _write_new(path: Path, content: bytes, mode: int) -> None:
    """Writes a file that must not be there yet. Raises Fault."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
    except OSError as error:
        raise _unwritable(path, error) from error


def _replace(path: Path, content: bytes, mode: int) -> None:
    """Writes a file in the place of another one, whole or not at all. Raises Fault."""
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    _write_new(partial, content, mode)
    partial.rename(path)


def _unwritable(path: Path, error: OSError) -> Fault:
    return Fault(Kind.CANNOT_CREATE, f"{path} cannot be written: {error.strerror}")
