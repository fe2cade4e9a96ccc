"""Who is calling, what they may, and until when: on the side of a daemon.

Whoever reaches the Unix socket is admin: its permissions are the key. Over TLS it is a
bearer token, or else the certificate of the client, that has a role. What counts no
more ends the calls under way that came with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import re
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from clusterdep.api import roles
from clusterdep.api.errors import Fault, Kind

#: Calls of one token or certificate at once; nobody takes all that there are.
CALLS_OF_ONE = 512
#: How often calls under way are looked through for what has expired, seconds.
REVIEW_SECONDS = 1.0
_TOKEN = re.compile(r"cdt_[A-Za-z0-9_-]{43}")
_ROLE_NAME = re.compile(r"clusterdep://role/(\w+)")
_ASK = "ask an admin for one: 'clusterdep token add NAME --role ROLE'"


def new_secret() -> str:
    """A new token: 256 random bits behind a mark by which it can be found where it leaked to."""
    return f"cdt_{secrets.token_urlsafe(32)}"


def digest_of(secret: str) -> bytes:
    """What is kept of a token. It is random, so no slow hash is needed."""
    return hashlib.sha256(secret.encode()).digest()


def role_uri(role: str) -> str:
    """The subject alternative name by which a certificate gives a role."""
    return f"clusterdep://role/{role}"


# -- tokens ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Token:
    """What a daemon knows of a token. Times are seconds since 1970; 0: never."""

    name: str
    role: str
    digest: bytes
    expires: float = 0.0


class Tokens:
    """The tokens that count."""

    def __init__(self) -> None:
        self._by_start: dict[bytes, Token] | None = None
        self._changed = asyncio.Event()

    @property
    def all(self) -> tuple[Token, ...]:
        """All of them."""
        return tuple((self._by_start or {}).values())

    @property
    def known(self) -> bool:
        """Whether anybody has said yet which tokens there are."""
        return self._by_start is not None

    def replace(self, tokens: Iterable[Token]) -> None:
        """These count from now on, and no others."""
        self._by_start = {token.digest[:16]: token for token in tokens}
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def find(self, digest: bytes) -> Token | None:
        """The token that has this digest."""
        # The table is searched by half of the digest, whose timing says nothing of a token;
        # what decides is compared in constant time.
        token = (self._by_start or {}).get(digest[:16])
        return token if token and hmac.compare_digest(token.digest, digest) else None

    async def wait(self) -> None:
        """Waits for the next change."""
        await self._changed.wait()


# -- callers -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call, and by what right."""

    name: str  # "token ci", "certificate build1", "the Unix socket": for people
    role: str
    expires: float = 0.0  # 0: never
    digest: bytes = b""  # of its token
    fingerprint: str = ""  # of its certificate
    private: bool = True  # nobody else can read what is said


#: The caller whose order is being carried out.
_CALLER: ContextVar[Caller | None] = ContextVar("caller", default=None)
SOCKET = Caller("the Unix socket", roles.ADMIN)


def caller() -> Caller:
    """Who made the call that is being answered."""
    return _CALLER.get() or SOCKET


@dataclass(frozen=True, slots=True)
class Certificate:
    """What counts of a client's certificate."""

    name: str
    role: str  # empty: it gives none
    expires: float
    fingerprint: str  # SHA-256, hex


Read = Callable[[bytes], Certificate]


class Stay:
    """A call under way, in the task that answers it."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.ended = False
        self._task = asyncio.current_task()
        self._writing = False

    def end(self) -> None:
        """It may not go on: ends it where it waits, or when it has written its message."""
        if self.ended or self._task is None:
            return
        self.ended = True
        # While a message is being written gRPC takes no status.
        if not self._writing:
            self._task.cancel()

    def is_why(self) -> bool:
        """Whether the cancellation on its way is ours, and nobody else's besides."""
        return self.ended and self._task is not None and self._task.uncancel() == 0

    async def write(self, context: Any, message: object) -> None:
        """Writes an answer; raises Fault if the call may not go on after it."""
        self._writing = True
        await context.write(message)
        self._writing = False
        if self.ended:
            raise self.fault()

    def fault(self) -> Fault:
        """Why it ended."""
        what = f"{self.caller.name} counts no more: it was revoked, or has expired"
        return Fault(Kind.UNAUTHENTICATED, what)


class Gate:
    """Lets calls in or refuses them, and ends those whose right has ended."""

    def __init__(
        self,
        tokens: Tokens,
        read_certificate: Read | None = None,
        revoked: Callable[[], frozenset[str]] = frozenset,
        plaintext_role: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`read_certificate` reads a PEM; `revoked` says which fingerprints count no more."""
        self.tokens = tokens
        self.refused: Counter[str] = Counter()  # calls, by the word for why
        self._read_certificate = read_certificate
        self._revoked = revoked
        self._plaintext_role = plaintext_role
        self._clock = clock
        self._stays: set[Stay] = set()
        self._under_way: Counter[str] = Counter()  # calls by the name of their caller

    def admit(self, method: str, context: Any) -> Caller:
        """Who makes a call to `method`, if they may. Raises Fault. Reads no message."""
        try:
            caller = self._identify(context)
        except Fault:
            self.refused["unauthenticated"] += 1
            raise
        needed = roles.NEEDED.get(method)
        if needed is None or not roles.includes(caller.role, needed):
            self.refused["denied"] += 1
            wanted = f"needs the role {needed}" if needed else "may be called by nobody"
            raise Fault(
                Kind.DENIED,
                f"{method.rpartition('/')[2]} {wanted}, and {caller.name} has {caller.role}",
                "ask an admin for a token or a certificate with that role" if needed else "",
            )
        _CALLER.set(caller)
        return caller

    def _identify(self, context: Any) -> Caller:
        if context.peer().startswith("unix:"):
            return SOCKET
        peer = context.auth_context()
        encrypted = peer.get("transport_security_type", [b""])[0] == b"ssl"
        token = _bearer(context.invocation_metadata())
        if not encrypted:
            return self._in_plaintext(token)
        pem = peer.get("x509_pem_cert", [b""])[0]
        certificate = (
            self._certificate(self._read_certificate(pem))
            if pem and self._read_certificate
            else None
        )
        if token is not None:
            return self._token(token, certificate)
        if certificate is None:
            raise Fault(Kind.UNAUTHENTICATED, "no token came with the call", _ASK)
        if certificate.role not in roles.ROLES:
            what = f"the certificate {certificate.name} gives no role, and no token came with it"
            raise Fault(
                Kind.UNAUTHENTICATED, what, "issue it with 'clusterdep cert issue --role ROLE'"
            )
        return Caller(
            f"certificate {certificate.name}",
            certificate.role,
            certificate.expires,
            fingerprint=certificate.fingerprint,
        )

    def _in_plaintext(self, token: str | None) -> Caller:
        if token is not None:
            raise Fault(
                Kind.UNAUTHENTICATED,
                "a token came over a connection that is not encrypted: others may have read it",
                "revoke it, and use TLS: 'clusterdep token revoke NAME'",
            )
        return Caller("whoever comes without TLS", self._plaintext_role, private=False)

    def _token(self, secret: str, certificate: Certificate | None) -> Caller:
        if not self.tokens.known:
            raise Fault(
                Kind.UNAVAILABLE, "which tokens count is not known yet: clusterdep was not reached"
            )
        digest = digest_of(secret) if _TOKEN.fullmatch(secret) else b""
        token = self.tokens.find(digest)
        if token is None:
            what = "the token is unknown, or was revoked"
            raise Fault(Kind.UNAUTHENTICATED, what, _ASK)
        if token.expires and token.expires <= self._clock():
            raise Fault(Kind.UNAUTHENTICATED, f"the token {token.name} has expired", _ASK)
        return Caller(
            f"token {token.name}",
            token.role,
            token.expires,
            digest,
            certificate.fingerprint if certificate else "",
        )

    def _certificate(self, found: Certificate) -> Certificate:
        if found.fingerprint in self._revoked():
            raise Fault(
                Kind.UNAUTHENTICATED,
                f"the certificate {found.name} was revoked",
                "ask an admin for another one",
            )
        if found.expires <= self._clock():
            raise Fault(
                Kind.UNAUTHENTICATED,
                f"the certificate {found.name} has expired since the connection was made",
                "renew it: 'clusterdep cert issue NAME --renew'",
            )
        return found

    # -- calls under way -----------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def under_way(self, caller: Caller) -> AsyncIterator[Stay]:
        """A call of `caller`; raises Fault out of its midst when they may no longer."""
        stay = Stay(caller)
        if caller is SOCKET:
            yield stay
            return
        if self._under_way[caller.name] >= CALLS_OF_ONE:
            what = f"{caller.name} has {CALLS_OF_ONE} calls under way, and no more are taken"
            raise Fault(Kind.LIMIT, what, "end some, or wait until they end")
        self._under_way[caller.name] += 1
        self._stays.add(stay)
        try:
            yield stay
        except asyncio.CancelledError:
            if not stay.is_why():
                raise
            raise stay.fault() from None
        finally:
            self._stays.discard(stay)
            self.refused["ended"] += stay.ended
            self._under_way[caller.name] -= 1
            if not self._under_way[caller.name]:
                del self._under_way[caller.name]

    def review(self) -> None:
        """Ends the calls under way whose right has ended."""
        if not self._stays:
            return
        now, revoked = self._clock(), self._revoked()
        for stay in self._stays:
            caller = stay.caller
            gone = caller.digest and not self.tokens.find(caller.digest)
            expired = caller.expires and caller.expires <= now
            if gone or expired or caller.fingerprint in revoked:
                stay.end()

    async def keep(self) -> None:
        """Reviews whenever tokens change, and every second, until it is cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.tokens.wait(), REVIEW_SECONDS)
            self.review()


def _bearer(metadata: Iterable[tuple[str, str | bytes]] | None) -> str | None:
    """What came as a bearer token; None: nothing."""
    values = [value for key, value in metadata or () if key.lower() == "authorization"]
    if not values:
        return None
    scheme, _, secret = str(values[0]).partition(" ")
    if len(values) > 1 or scheme.lower() != "bearer":
        what = "the metadata 'authorization' must be once, and 'Bearer TOKEN'"
        raise Fault(Kind.UNAUTHENTICATED, what, _ASK)
    return secret.strip()


def role_of(uris: Iterable[str]) -> str:
    """The role that the names in a certificate give; empty if none, or more than one."""
    found = {match[1] for uri in uris if (match := _ROLE_NAME.fullmatch(uri))}
    return found.pop() if len(found) == 1 else ""
