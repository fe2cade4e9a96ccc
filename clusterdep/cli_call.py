"""What all commands that ask a daemon share: the channel, and how answers are printed."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from google.protobuf.message import Message

from clusterdep.api import client
from clusterdep.api.addresses import Access
from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.api.v1 import clusterdep_pb2_grpc as rpc

#: Deadline of an ordinary call, seconds.
DEADLINE = 60.0


class Caller:
    """Stubs of all services over one channel."""

    def __init__(self, address: str, access: Access | None = None) -> None:
        """Raises Fault if the address, or a file of `access`, cannot be used."""
        self._channel = client.connect(address, access)
        self.feed: Any = rpc.FeedStub(self._channel)
        self.work: Any = rpc.WorkStub(self._channel)
        self.query: Any = rpc.QueryStub(self._channel)
        self.admin: Any = rpc.AdminStub(self._channel)

    async def close(self) -> None:
        """Ends the connection."""
        await self._channel.close()

    @staticmethod
    def address_of(args: argparse.Namespace) -> str:
        """The daemon that the options name, or the default one."""
        if getattr(args, "address", None):
            return str(args.address)
        state = Path(args.state) if getattr(args, "state", None) else None
        return client.default_address("clusterdep", state)


def ask(args: argparse.Namespace, call: Callable[[Caller], Awaitable[int]]) -> int:
    """Runs `call` with a connection to the daemon; returns its exit code."""

    async def run() -> int:
        caller = Caller(Caller.address_of(args), client.access_of(args))
        try:
            return await call(caller)
        finally:
            await caller.close()

    return asyncio.run(run())


def as_dict(message: Message) -> dict[str, Any]:
    """A message as plain values: names as in the contract, enums as their words."""
    return {
        field.name: _plain(field, getattr(message, field.name))
        if field.is_repeated or not field.message_type or message.HasField(field.name)
        else None
        for field in message.DESCRIPTOR.fields
    }


def _plain(field: Any, value: Any) -> Any:
    if field.is_repeated:
        return [_single(field, part) for part in value]
    return _single(field, value)


def _single(field: Any, value: Any) -> Any:
    if field.enum_type is not None:
        # KIND_ACCEPTED of Kind, STATUS_BUILT of Status: the word comes after the type's name.
        kind = "".join(f"_{c}" if c.isupper() else c for c in field.enum_type.name).lstrip("_")
        return field.enum_type.values_by_number[value].name[len(kind) + 1 :].lower()
    if field.message_type is not None:
        return as_dict(value)
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    return value


def print_json(message: Message, **changes: Any) -> None:
    """One JSON object on one line; `changes` replace fields that are better shown otherwise."""
    print(json.dumps(as_dict(message) | changes, sort_keys=False))


def status_word(status: int) -> str:
    """The word for a status: "built"."""
    return pb.Status.Name(pb.Status.ValueType(status))[len("STATUS_") :].lower()


def print_table(rows: Sequence[tuple[str, ...]], titles: tuple[str, ...]) -> None:
    """Rows in columns as wide as they need, titles on a terminal only."""
    if sys.stdout.isatty():
        rows = [titles, *rows]
    if not rows:
        return
    widths = [max(len(row[i]) for row in rows) for i in range(len(titles))]
    for row in rows:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
