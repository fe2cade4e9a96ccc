"""Bearer tokens: made, listed, revoked; only the digest of each is stored."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

from clusterdep.api import roles
from clusterdep.api.access import Token, Tokens, caller, digest_of, new_secret
from clusterdep.api.errors import Fault, Kind
from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.ledger import Ledger

#: Events of a daemon as a whole.
NO_PROFILE = ""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
#: Longest that a token may last, if it ends at all, seconds.
LONGEST = 100 * 365 * 86400.0


class Keyring:
    """The tokens in the database, and those of them that count."""

    def __init__(self, ledger: Ledger, tokens: Tokens) -> None:
        """`tokens` is told which count, now and after every change."""
        self._ledger = ledger
        self._tokens = tokens
        self._stopping = asyncio.Event()
        self._tell()

    def _tell(self) -> None:
        self._tokens.replace(
            Token(row["name"], row["role"], bytes.fromhex(row["digest"]), row["expires_at"] or 0.0)
            for row in self._ledger.store.rows("tokens")
            if row["revoked_at"] is None
        )

    def add(self, name: str, role: str, lasts: float) -> pb.AddTokenResponse:
        """Makes a token; see Admin.AddToken in the contract."""
        self._check(name, role, lasts)
        if not caller().private:
            raise Fault(
                Kind.DENIED,
                "the token would be told over a connection that is not encrypted",
                "ask over the Unix socket, or over TLS",
            )
        now = self._ledger.clock()
        known = self._ledger.store.row("token", (name,))
        if known and known["revoked_at"] is None and (known["expires_at"] or now + 1) > now:
            what = f"there is a token {name} with the role {known['role']}"
            raise Fault(Kind.EXISTS, what, "revoke it first, or choose another name")
        secret = new_secret()
        expires = now + lasts if lasts else None
        with self._ledger.transaction():
            self._ledger.store.run("put_token", (name, role, digest_of(secret).hex(), now, expires))
            self._ledger.event(NO_PROFILE, "token", name, f"added by {caller().name}", role=role)
        self._tell()
        token = pb.Token(name=name, role=role, created=now, expires=expires or 0.0)
        return pb.AddTokenResponse(token=token, secret=secret)

    @staticmethod
    def _check(name: str, role: str, lasts: float) -> None:
        wrong = []
        if not _NAME.fullmatch(name):
            wrong.append(f"name '{name}' is not 1 to 64 letters, digits, or . _ - after the first")
        if role not in roles.ROLES:
            wrong.append(f"role '{role}' is none of {', '.join(roles.ROLES)}")
        if not 0 <= lasts <= LONGEST:
            wrong.append(f"lasts {lasts} is not a length of time")
        if wrong:
            raise Fault(Kind.DATA, f"the token can not be made: {'; '.join(wrong)}")

    def all(self) -> pb.ListTokensResponse:
        """Every token there was, without what is secret."""
        return pb.ListTokensResponse(
            tokens=[
                pb.Token(
                    name=row["name"],
                    role=row["role"],
                    created=row["created_at"],
                    expires=row["expires_at"] or 0.0,
                    revoked=row["revoked_at"] or 0.0,
                )
                for row in self._ledger.store.rows("tokens")
            ]
        )

    def revoke(self, name: str) -> bool:
        """A token counts no more; False: it did not before. Raises Fault NOT_FOUND."""
        known = self._ledger.store.row("token", (name,))
        if known is None:
            raise Fault(Kind.NOT_FOUND, f"no token {name}", "'clusterdep token list' names all")
        if known["revoked_at"] is not None:
            return False
        with self._ledger.transaction():
            self._ledger.store.run("revoke_token", (self._ledger.clock(), name))
            self._ledger.event(NO_PROFILE, "token", name, f"revoked by {caller().name}")
        self._tell()
        return True

    async def watch(self) -> AsyncIterator[pb.KnownTokens]:
        """Those that count, now and whenever they change, until the daemon stops."""
        while not self._stopping.is_set():
            yield pb.KnownTokens(
                tokens=[
                    pb.KnownToken(
                        name=token.name,
                        role=token.role,
                        digest=token.digest,
                        expires=token.expires,
                    )
                    for token in self._tokens.all
                ]
            )
            changed = {
                asyncio.ensure_future(self._tokens.wait()),
                asyncio.ensure_future(self._stopping.wait()),
            }
            try:
                await asyncio.wait(changed, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in changed:
                    task.cancel()

    def stop(self) -> None:
        """Ends everybody who watches."""
        self._stopping.set()
