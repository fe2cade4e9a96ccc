"""Random messages for every call of the contract, made from its descriptors."""

from __future__ import annotations

import random
from typing import Any

from dep_daemon import record
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

#: What records are cut and mixed from.
RECORDS = (
    record("liba-1.0"),
    record("libb-1.0", ["liba-[0-9]*"]),
    record("py39-x-1.0", pkgpath="cat/x", MULTI_VERSION="PY=39"),
    record("loop-1.0", ["loop>=0"]),
    record("bad-1.0", ["{nosuch,liba", "liba>=1<"]),
)
WORDS = (
    "", "p", "q", "liba", "liba-1.0", "cat/liba", "cat", "libb>=1", "{a,b}-[0-9]*", "*", "[",
    "../../etc", "/", "a b", "a\0b", "\n", "é☃\U0001f600", "x" * 10_000, "{" * 500, "*a" * 200,
    "inputs", "git", "prefer-buildable", "viewer", "d", "h", "0" * 64, "PY=39", "-1", "%s%n",
)  # fmt: skip
NUMBERS = (0, 0, 1, 1, 2, 3, -1, 100, 2**31 - 1, -(2**31))
LARGE = (2**63 - 1, -(2**63), 2**53)
REALS = (0.0, 1.0, 0.5, 1e-300, 1e300, -1.0, float("nan"), float("inf"), float("-inf"))
#: Fields that decide whether anything else is looked at mostly have one of these.
LIKELY = {
    "profile": ("p", "p", ""),
    "package": ("liba", "libb-1.0", "cat/x", "p3", "p59"),
    "packages": ("liba", "libb-1.0", "p3", "p59"),
    "pkgpath": ("cat/liba", "cat/x", "cat/new"),
    "name": ("p", "h", "new"),
    "dispatcher": ("d",),
    "variant": ("", "PY=39"),
    "policy": ("", "exists", "inputs"),
    "resolver": ("", "prefer-buildable"),
    "follow": ("", "none"),
    "scans": ("", "hosts"),
    "role": ("viewer", "admin"),
    "at": ("wip",),
    "selection": ("cat", "liba-[0-9]*"),
    **dict.fromkeys(("tree", "prefix", "pkgdb", "kit", "distdir"), ("", "/nowhere")),
}
#: How deep messages go, and how many a list has.
DEEPEST = 5
MOST = 4


class Maker:
    """Makes messages; what it made of `seen` values is used again."""

    def __init__(self, seed: str, directory: str) -> None:
        self.rng = random.Random(seed)
        self.words = [*WORDS, directory, f"{directory}/file"]

    def learn(self, message: Message) -> None:
        """Takes up the texts of an answer: attempts, digests."""
        for field, value in message.ListFields():
            if field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated and value:
                self.words.append(str(value))
                del self.words[len(WORDS) + 50 :]

    def message(self, descriptor: Descriptor, deep: int = 0) -> Message:
        """A message with some of its fields set."""
        message = GetMessageClass(descriptor)()
        for field in descriptor.fields:
            if deep > DEEPEST or self.rng.random() < 0.3:
                continue
            if field.is_repeated:
                count = self.rng.randrange(MOST)
                values = [self.part(field, deep) for _ in range(count)]
                getattr(message, field.name).extend(values)
            elif field.message_type:
                getattr(message, field.name).CopyFrom(self.part(field, deep))
            else:
                setattr(message, field.name, self.value(field))
        return message

    def part(self, field: FieldDescriptor, deep: int) -> Any:
        """A value for any field."""
        if field.message_type:
            return self.message(field.message_type, deep + 1)
        return self.value(field)

    def value(self, field: FieldDescriptor) -> Any:
        """A value for a field that is no message."""
        kind, rng = field.type, self.rng
        if kind == FieldDescriptor.TYPE_STRING:
            likely = LIKELY.get(field.name)
            return rng.choice(self.words if likely is None or rng.random() < 0.2 else likely)
        if kind == FieldDescriptor.TYPE_BYTES:
            return self.bytes()
        if kind == FieldDescriptor.TYPE_BOOL:
            return rng.random() < 0.5
        if kind == FieldDescriptor.TYPE_ENUM:
            # Also numbers that mean nothing.
            return rng.choice([*(value.number for value in field.enum_type.values), 77])
        if kind in (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT):
            if "wait" in field.name:
                return rng.choice((0.0, 0.05))
            return rng.choice(REALS if rng.random() < 0.1 else REALS[:5])
        small = kind in (FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_UINT32)
        return rng.choice(NUMBERS if small else NUMBERS + LARGE)

    def bytes(self) -> bytes:
        """Records, or what was once a record."""
        rng = self.rng
        data = bytearray(b"".join(rng.choices(RECORDS, k=rng.randrange(1, 4))))
        for _ in range(rng.choice((0, 0, 1, 5))):
            at = rng.randrange(len(data))
            data[at : at + rng.randrange(20)] = rng.randbytes(rng.randrange(20))
        return bytes(data)

    def stream(self, method: MethodDescriptor) -> list[bytes]:
        """What is sent in one call: messages, sound or damaged, or nothing like it."""
        count = 1
        if method.client_streaming:
            count = self.rng.randrange(6)
        sent = [self.message(method.input_type) for _ in range(count)]
        if method.name == "PutRecords" and self.rng.random() < 0.7:
            sent = self.delivery(method.input_type)
        data = [message.SerializeToString() for message in sent]
        if data and self.rng.random() < 0.3:
            at = self.rng.randrange(len(data))
            data[at] = self.damage(data[at])
        return data

    def delivery(self, descriptor: Descriptor) -> list[Message]:
        """A stream that begins and ends as it should."""
        parts = []
        for name in ("header", *self.rng.choices(("records", "scan"), k=3), "end"):
            part = GetMessageClass(descriptor)()
            field = descriptor.fields_by_name[name]
            if field.message_type:
                below = self.message(field.message_type)
                getattr(part, name).CopyFrom(below)
            else:
                part.records = self.bytes()  # type: ignore[attr-defined]
            if name == "header":
                part.header.profile = "p"  # type: ignore[attr-defined]
                part.header.mode = self.rng.choice((1, 2))  # type: ignore[attr-defined]
                part.header.create = True  # type: ignore[attr-defined]
                part.header.attempt = ""  # type: ignore[attr-defined]
            parts.append(part)
        return parts

    def damage(self, data: bytes) -> bytes:
        """Bytes that are no message, or hardly one."""
        rng = self.rng
        way = rng.randrange(4)
        if way == 0:
            return rng.randbytes(rng.randrange(1, 200))
        if way == 1:
            return data[: rng.randrange(len(data) + 1)]
        if way == 2:
            return data + data
        changed = bytearray(data or b"\0")
        for _ in range(3):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        return bytes(changed)
