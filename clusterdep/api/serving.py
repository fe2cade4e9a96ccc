"""What both daemons share in serving: one daemon per state directory, the socket, faults."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from clusterdep.api import checking, client
from clusterdep.api.errors import Fault, Kind

log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
#: Characters of what is said of a request that can not be read.
MOST_SAID = 200
Handler = Any  # grpc.RpcMethodHandler: its fields are typed for synchronous servers only


# -- the state directory -----------------------------------------------------------------


@contextlib.contextmanager
def only_one(state: Path, name: str) -> Iterator[None]:
    """Holds STATE/NAME.lock with our pid in it. Raises Fault where another process does."""
    path = state / f"{name}.lock"
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Fault(
            Kind.CANNOT_CREATE,
            f"the state directory {state} cannot be written: {error.strerror}",
            "make it writable for this user, or name another with --state DIR",
        ) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            other = os.pread(lock, 20, 0).decode(errors="replace").strip() or "unknown"
            raise Fault(
                Kind.INTERRUPTED,
                f"another '{name}' (pid {other}) uses the state directory {state}",
                "wait for it or stop it, or name another directory with --state DIR",
            ) from error
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(lock)


# -- the socket --------------------------------------------------------------------------


class Health:
    """What the health service says of each service; an empty name is all of them together."""

    def __init__(self, checks: health.aio.HealthServicer) -> None:
        self._checks = checks
        self._tasks: set[asyncio.Task[None]] = set()

    def say(self, services: Iterable[str], serving: bool) -> None:
        """From now on these serve, or do not."""
        answer = health_pb2.HealthCheckResponse
        status = answer.SERVING if serving else answer.NOT_SERVING
        for name in services:
            task = asyncio.get_running_loop().create_task(self._checks.set(name, status))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


@contextlib.asynccontextmanager
async def listening(
    server: grpc.aio.Server, address: str, state: Path, services: Sequence[str], grace: float
) -> AsyncIterator[Health]:
    """Serves at `address` (unix:PATH) for as long as the block lasts, health and reflection too.

    `services` are full names; calls under way may take `grace` seconds at the end. Raises
    Fault if it can not be served there.
    """
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    names = (*services, reflection.SERVICE_NAME, health.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    path = Path(address.removeprefix("unix:"))
    _bind(server, path, state)
    await server.start()
    for name in ("", *services):
        await checks.set(name, health_pb2.HealthCheckResponse.SERVING)
    try:
        yield Health(checks)
    finally:
        await server.stop(grace)
        _unlink(path)


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)


def _bind(server: grpc.aio.Server, path: Path, state: Path) -> None:
    """Binds the Unix socket; one at which nobody answers is of a daemon that was killed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if path.parent != state and path == client.socket_path(state, path.name):
            _check_private(path.parent)
        if path.is_socket() and not _answers(path):
            path.unlink()
        elif path.exists():
            raise Fault(
                Kind.UNAVAILABLE,
                f"another program serves the socket {path}",
                "stop that one, or name another with 'listen' in the configuration",
            )
        # Whoever may write to the socket may give orders: only its owner may.
        mask = os.umask(0o177)
        try:
            server.add_insecure_port(f"unix:{path}")
        finally:
            os.umask(mask)
    except (OSError, RuntimeError) as error:
        raise Fault(
            Kind.CANNOT_CREATE,
            f"the socket {path} cannot be made: {error}",
            "make its directory writable for this user, or set 'listen' in the configuration",
        ) from error


def _check_private(directory: Path) -> None:
    """A directory in /tmp could have been made by somebody else before us. Raises Fault."""
    found = directory.lstat()
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise Fault(
            Kind.DENIED,
            f"the directory {directory} of the socket is not ours alone",
            "remove it, or name a state directory with a shorter path with --state DIR",
        )


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
    return True


# -- faults ------------------------------------------------------------------------------


class FaultInterceptor(grpc.aio.ServerInterceptor):
    """Turns a Fault raised by any method into the status of its call.

    A request that is no message of its type, or has what no message may have, is
    refused with the reason before its method sees it.
    """

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        read = _reading(handler.request_deserializer)
        if handler.response_streaming:
            method = handler.stream_stream if handler.request_streaming else handler.unary_stream
            wrap = (
                grpc.stream_stream_rpc_method_handler
                if handler.request_streaming
                else grpc.unary_stream_rpc_method_handler
            )
            guarded: Any = _guard_stream(method, handler.request_streaming)
        else:
            method = handler.stream_unary if handler.request_streaming else handler.unary_unary
            wrap = (
                grpc.stream_unary_rpc_method_handler
                if handler.request_streaming
                else grpc.unary_unary_rpc_method_handler
            )
            guarded = _guard(method, handler.request_streaming)
        return wrap(guarded, read, handler.response_serializer)


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


def _guard(
    method: Callable[[Any, Context], Awaitable[Any]], streams: bool
) -> Callable[..., Awaitable[Any]]:
    async def guarded(request: Any, context: Context) -> Any:
        try:
            usable = _usable_ones(request) if streams else _usable(request)
            return await method(usable, context)
        except Fault as fault:
            await _refuse(context, fault)
        except grpc.aio.AbortError:
            raise  # an abort on its way out
        except Exception:
            await _fail(context)

    return guarded


def _guard_stream(
    method: Callable[[Any, Context], Any], streams: bool
) -> Callable[..., AsyncIterator[Any]]:
    async def guarded(request: Any, context: Context) -> AsyncIterator[Any]:
        try:
            usable = _usable_ones(request) if streams else _usable(request)
            async for answer in method(usable, context):
                yield answer
        except Fault as fault:
            await _refuse(context, fault)
        except grpc.aio.AbortError:
            raise
        except Exception:
            await _fail(context)

    return guarded


async def _refuse(context: Context, fault: Fault) -> None:
    if fault.kind is Kind.INTERNAL:
        log.error("call failed: %s", fault.what)
    await context.abort(fault.code, str(fault))


async def _fail(context: Context) -> None:
    """The daemon is at fault: the log says where, the caller that it is not his."""
    log.exception("call failed")
    fault = Fault(Kind.INTERNAL, "a fault of the daemon, not of the call", "its log says more")
    await context.abort(fault.code, str(fault))
