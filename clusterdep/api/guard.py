"""What stands before every method of a daemon: who may call it, and faults made statuses."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message

from clusterdep.api import checking
from clusterdep.api.access import Gate, Stay
from clusterdep.api.errors import Fault, Kind

log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
Handler = Any  # grpc.RpcMethodHandler: its fields are typed for synchronous servers only

#: Characters of what is said of a request that can not be read.
MOST_SAID = 200
#: Characters of the text of a status: gRPC takes 8 KiB, and a character may be 12 bytes of it.
LONGEST = 600
#: How long the status of a call may take to a reader that reads nothing, seconds.
FAREWELL_SECONDS = 2.0


class Guard(grpc.aio.ServerInterceptor):
    """Admits the caller of every method before a message is read; a Fault becomes the status.

    A request that is no message of its type, or has what no message may have, is
    refused with the reason before its method sees it.
    """

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        # As a stream of requests, so that nothing is read of those who may not.
        wrap: Any = (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
        return wrap(
            self._guarded(handler, str(handler_call_details.method)),
            _reading(handler.request_deserializer),
            handler.response_serializer,
        )

    def _guarded(self, handler: Handler, name: str) -> Callable[[Any, Context], Awaitable[Any]]:
        answer = _answer_with(handler)

        async def guarded(requests: AsyncIterator[Any], context: Context) -> Any:
            try:
                async with self._gate.under_way(self._gate.admit(name, context)) as stay:
                    return await answer(requests, context, stay)
            except Fault as fault:
                await _refuse(context, fault)
            except grpc.aio.AbortError:
                raise  # an abort on its way out
            except Exception:
                await _fail(context)

        return guarded


# -- requests ----------------------------------------------------------------------------


def _reading(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    """Reads a request; what is wrong with it comes as a Fault in its place."""
    if deserialize is None:
        return None

    def read(data: bytes) -> Any:
        try:
            request = deserialize(data)
        except DecodeError as error:
            return Fault(Kind.DATA, f"the request can not be read: {str(error)[:MOST_SAID]}")
        wrong = checking.problem(request) if isinstance(request, Message) else ""
        return Fault(Kind.DATA, wrong) if wrong else request

    return read


def _usable(request: Any) -> Any:
    if isinstance(request, Fault):
        raise request
    return request


async def _usable_ones(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _usable(request)


async def _only_one(context: Context) -> Any:
    request = await context.read()
    if request is grpc.aio.EOF:
        raise Fault(Kind.DATA, "the call came without a message")
    return _usable(request)


# -- answers -----------------------------------------------------------------------------


class _Writes:
    """The context of a method that writes its answers itself."""

    def __init__(self, context: Context, stay: Stay) -> None:
        self._context = context
        self._stay = stay

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def write(self, message: object) -> None:
        await self._stay.write(self._context, message)


def _answer_with(handler: Handler) -> Callable[[Any, Context, Stay], Awaitable[Any]]:
    """The method of a handler, taking requests as a stream and writing its answers itself."""
    one: Any = handler.stream_unary or handler.unary_unary
    many: Any = handler.stream_stream or handler.unary_stream

    async def answer(requests: AsyncIterator[Any], context: Context, stay: Stay) -> Any:
        streams = handler.request_streaming
        asked = _usable_ones(requests) if streams else await _only_one(context)
        if one is not None:
            return await one(asked, context)
        answers = many(asked, _Writes(context, stay))
        if not hasattr(answers, "__aiter__"):
            return await answers  # it writes them itself
        async with contextlib.aclosing(answers):
            async for message in answers:
                await stay.write(context, message)
        return None

    return answer


async def _refuse(context: Context, fault: Fault) -> None:
    if fault.kind is Kind.INTERNAL:
        log.error("call failed: %s", fault.what)
    try:
        async with asyncio.timeout(FAREWELL_SECONDS):
            await context.abort(fault.code, _shown(fault))
    except TimeoutError:
        # It reads nothing, so that it cannot be told either; it is told when it does.
        raise asyncio.CancelledError from None


def _shown(fault: Fault) -> str:
    """What is said, cut in the middle if it is longer than what a status can bring."""
    text = str(fault)
    if len(text) <= LONGEST:
        return text
    half = LONGEST // 2
    return f"{text[:half]} ... {text[-half:]}"


async def _fail(context: Context) -> None:
    """The daemon is at fault: the log says where, the caller that it is not his."""
    log.exception("call failed")
    fault = Fault(Kind.INTERNAL, "a fault of the daemon, not of the call", "its log says more")
    await _refuse(context, fault)
