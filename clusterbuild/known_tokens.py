"""Bearer tokens at the dispatcher: those that clusterdep knows, told by it at every change."""

from __future__ import annotations

import asyncio
import logging

import grpc

from clusterdep.api.access import Token, Tokens
from clusterdep.api.client import Link, fault_of
from clusterdep.api.errors import Kind
from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.api.v1 import clusterdep_pb2_grpc as rpc

log = logging.getLogger("clusterbuild.known_tokens")

#: Pause after the connection was lost, or a refusal, seconds.
PAUSE, LONG_PAUSE = 1.0, 5.0


async def follow_tokens(link: Link, tokens: Tokens) -> None:
    """Keeps `tokens` as clusterdep has them, until it is cancelled.

    While clusterdep does not answer those it told of last count on.
    """
    said = ""
    while True:
        try:
            async for known in rpc.WorkStub(link.channel).WatchTokens(pb.WatchTokensRequest()):
                tokens.replace(Token(t.name, t.role, t.digest, t.expires) for t in known.tokens)
                said = ""
        except grpc.RpcError as error:
            fault = await asyncio.to_thread(
                fault_of, error, link.address, "clusterdep", link.access
            )
            if fault.what != said:
                log.warning(
                    "clusterdep does not say which tokens count: %s; those it named last do",
                    fault.what,
                )
                said = fault.what
            refused = fault.kind in (Kind.DENIED, Kind.UNAUTHENTICATED)
            await asyncio.sleep(LONG_PAUSE if refused else PAUSE)
        else:
            await asyncio.sleep(PAUSE)
