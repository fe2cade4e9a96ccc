"""Where a daemon serves, what it shows there, and what it asks of whoever comes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusterdep.api import roles, settings

#: Keys of a daemon's configuration, the same in both.
KEYS: dict[str, settings.Check] = {
    "listen": settings.listen,
    "tls_certificate": settings.file,
    "tls_key": settings.file,
    "tls_client_ca": settings.file,
    "tls_revoked": settings.file,
    "insecure_plaintext": settings.one_of(roles.ROLES),
}
#: Those that name files; relative ones are looked for beside the configuration.
FILES = ("tls_certificate", "tls_key", "tls_client_ca", "tls_revoked")


@dataclass(frozen=True, slots=True)
class Ports:
    """All places of one daemon. Each is unix:PATH, tls:, mtls: or plaintext:HOST:PORT."""

    places: tuple[str, ...]
    certificate: Path | None = None  # chain of the daemon, PEM
    key: Path | None = None  # its private key, PEM
    client_ca: Path | None = None  # whose certificates are taken at mtls: places, PEM
    revoked: Path | None = None  # fingerprints of certificates that count no more
    plaintext_role: str = ""  # of whoever reaches a plaintext: place

    @property
    def tls(self) -> bool:
        """Whether anything is served over TLS."""
        return any(place.startswith(("tls:", "mtls:")) for place in self.places)


def all_places(listen: tuple[str, ...], socket: str) -> tuple[str, ...]:
    """Where to serve: what is listed, and the Unix socket unless it lists another one."""
    if any(place.startswith("unix:") for place in listen):
        return listen
    return (socket, *listen)


def problems(values: Mapping[str, Any], text: str) -> list[str]:
    """What is wrong with the values of KEYS together, each as `:LINE: WHAT`."""
    kinds = {place.partition(":")[0] for place in values.get("listen", ())}
    place = settings.line_of(text, "listen")
    found = [
        f"{place}: listen has {kind}:, for which {key} must be set"
        for kind, key in (
            ("tls", "tls_certificate"),
            ("tls", "tls_key"),
            ("mtls", "tls_certificate"),
            ("mtls", "tls_key"),
            ("mtls", "tls_client_ca"),
        )
        if kind in kinds and key not in values
    ]
    if "plaintext" in kinds and "insecure_plaintext" not in values:
        found.append(
            f"{place}: listen has plaintext:, where everybody on the way can read and change what "
            "is said, and nobody can show who they are; if that is wanted, set insecure_plaintext "
            "to the role that whoever reaches it shall have"
        )
    if "insecure_plaintext" in values and "plaintext" not in kinds:
        place = settings.line_of(text, "insecure_plaintext")
        found.append(f"{place}: insecure_plaintext is set, but listen has no plaintext:")
    return found
