"""Nonsense in: every call refuses it with a reason, and the daemon goes on."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import pytest
from dep_daemon import host, record
from fuzzing import RECORDS, Maker
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given
from hypothesis import strategies as st
from test_crash import Process, load, records

from clusterdep import service as service_classes
from clusterdep.api import client
from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.core import dewey, scanindex

SIZE = int(os.environ.get("TEST_SIZE", "1"))
METHODS = [
    method
    for service in pb.DESCRIPTOR.services_by_name.values()
    for method in service.methods_by_name.values()
    if method.name in vars(getattr(service_classes, f"{service.name}Service"))
]
#: What a refusal may be. INTERNAL and UNKNOWN are faults of ours.
REFUSALS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
#: Longest that any call may take, seconds; those that go on for ever are left after a moment.
LONGEST = 30.0
MOMENT = 0.05
#: MiB that the daemon may grow by.
GROWTH = 200


async def call(channel: grpc.aio.Channel, method: MethodDescriptor, data: list[bytes]) -> Any:
    """The last answer to one call, whatever is sent in it. Raises grpc.RpcError."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    way = (
        f"{'stream' if method.client_streaming else 'unary'}_"
        f"{'stream' if method.server_streaming else 'unary'}"
    )
    read = GetMessageClass(method.output_type).FromString
    stub = getattr(channel, way)(path, response_deserializer=read)
    sent = iter(data) if method.client_streaming else data[0]
    made = stub(sent, timeout=LONGEST)
    if not method.server_streaming:
        return await made
    last = None
    try:
        async with asyncio.timeout(MOMENT):
            async for answer in made:
                last = answer
    except TimeoutError:
        made.cancel()
    return last


async def try_one(
    channel: grpc.aio.Channel, maker: Maker, method: MethodDescriptor, seen: Counter[object]
) -> None:
    data = maker.stream(method)
    try:
        answer = await call(channel, method, data)
    except grpc.aio.AioRpcError as error:
        what = f"{method.full_name}: {error.code().name}: {error.details()}\n{data!r:.2000}"
        assert error.code() in REFUSALS, what
        assert len(str(error.details())) > 10, what
        seen[error.code()] += 1
    else:
        seen["OK"] += 1
        if answer is not None:
            maker.learn(answer)


def memory(pid: int) -> int:
    """MiB that a process has."""
    shown = subprocess.run(
        ["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=True
    )
    return int(shown.stdout) // 1024


@pytest.mark.timeout(3000)
async def test_every_call_with_every_nonsense(tmp_path: Path) -> None:
    there = Process(tmp_path / "state")
    await there.start()
    await load(there, records(), pb.PutHeader.MODE_REPLACE)
    await there.caller.work.Exchange(pb.ExchangeRequest(dispatcher="d", hosts=[host()]))
    channel = client.connect(client.default_address("clusterdep", there.state))
    seed = os.environ.get("TEST_SEED", "1")
    maker = Maker(seed, str(tmp_path / "some"))
    seen: dict[str, Counter[object]] = {method.full_name: Counter() for method in METHODS}
    before = memory(there.process.pid)
    for number in range(12 * SIZE):
        for method in METHODS:
            await try_one(channel, maker, method, seen[method.full_name])
        if number % 4 == 0:  # so that there is something that can be spoiled
            await load(there, [*records(), *RECORDS], pb.PutHeader.MODE_MERGE)
        if number % 50 == 0:
            await there.check()
    # It is alive, answers, is sound, and has not grown without end.
    await load(there, records(), pb.PutHeader.MODE_REPLACE)
    await there.check()
    grown = memory(there.process.pid) - before
    assert grown < GROWTH, f"it grew by {grown} MiB"
    await channel.close()
    assert await there.stop() == 0
    assert all(counts.total() for counts in seen.values())


@pytest.mark.parametrize("method", METHODS, ids=lambda method: str(method.name))
async def test_garbage_is_refused_with_the_reason(garbage_target: Any, method: Any) -> None:
    """Not one byte of it is a message: a group that ends and never began."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call(garbage_target, method, [b"\x0c\xff\xff"])
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "can not be read" in str(error.value.details())


@pytest.fixture
async def garbage_target(dep: Any) -> Any:
    channel = client.connect(client.default_address("clusterdep", dep.state))
    yield channel
    await channel.close()


async def test_a_message_over_the_limit_is_refused(dep: Any) -> None:
    request = pb.PackageRequest(package="x" * (client.MESSAGE_LIMIT + 1))
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await dep.caller.query.GetPackage(request)
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than" in str(error.value.details())


async def test_numbers_that_are_none_are_named(dep: Any) -> None:
    await dep.load(record("liba-1.0"))
    nan = float("nan")
    for request, method, field in (
        (pb.PruneRequest(attempts_days=nan), dep.caller.admin.Prune, "attempts_days"),
        (pb.ExchangeRequest(wait_seconds=nan), dep.caller.work.Exchange, "wait_seconds"),
        (
            pb.ExchangeRequest(hosts=[host(speed=float("inf"))]),
            dep.caller.work.Exchange,
            "hosts.speed",
        ),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await method(request)
        assert str(error.value.details()) == f"{field} is not a finite number"


@given(
    st.lists(
        st.one_of(st.binary(max_size=300), st.sampled_from([*RECORDS, b"\n", b"=", b"PKGNAME="])),
        max_size=12,
    ),
    st.integers(1, 50),
)
def test_the_record_parser_takes_anything(pieces: list[bytes], step: int) -> None:
    """Every record is read or refused with a place and a reason, however the stream is cut."""
    whole = b"".join(pieces)
    results = list(scanindex.split([whole]))
    cut = [whole[at : at + step] for at in range(0, len(whole), step)]
    assert list(scanindex.split(cut)) == results
    for text in results:
        found = text if isinstance(text, scanindex.Refusal) else scanindex.read(text)
        if isinstance(found, scanindex.Refusal):
            assert found.where and found.why
        else:
            assert scanindex.is_pkgpath(found.pkgpath)


@given(
    st.text(alphabet="ab*?[]{},<>=-0189.!^\\nbrcplhe", max_size=60).map(str.encode),
    st.text(alphabet="ab-0189.nb", max_size=60).map(str.encode),
)
def test_the_matcher_takes_anything(pattern: bytes, name: bytes) -> None:
    try:
        compiled = dewey.compile_pattern(pattern)
    except dewey.PatternError as error:
        assert str(error)
        return
    if compiled.match(name):
        assert name.startswith(tuple(compiled.prefixes))


@pytest.mark.timeout(20)
def test_patterns_made_to_take_long_do_not() -> None:
    name = b"a" * 1000 + b"-1.0"
    for pattern in (
        b"*a" * 500 + b"b",
        b"{a,b}" * 8 + b"*" * 900,
        b"[a-z]*" * 150 + b"!",
        b"{" * 500 + b"}" * 500,
        b"a>=" + b"9" * 1000,
    ):
        try:
            dewey.compile_pattern(pattern).match(name)
        except dewey.PatternError as error:
            assert str(error)
