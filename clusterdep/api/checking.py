"""What no message may have in it, whatever it is about."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message


def problem(message: Message) -> str:
    """What is wrong with a request, by the name of its field; empty if nothing is.

    Times, lengths of time and the like are numbers: neither infinite nor "not a number".
    """
    for field in _with_numbers(message.DESCRIPTOR):
        if field.message_type is None:
            values = (
                getattr(message, field.name)
                if field.is_repeated
                else (getattr(message, field.name),)
            )
            if not all(map(math.isfinite, values)):
                return f"{field.name} is not a finite number"
            continue
        for part in _parts(message, field):
            found = problem(part)
            if found:
                return f"{field.name}.{found}"
    return ""


def _parts(message: Message, field: FieldDescriptor) -> Any:
    if field.is_repeated:
        return getattr(message, field.name)
    return (getattr(message, field.name),) if message.HasField(field.name) else ()


@cache
def _with_numbers(descriptor: Descriptor) -> tuple[FieldDescriptor, ...]:
    """The fields that are floating point numbers, or have such in them at any depth."""
    return tuple(field for field in descriptor.fields if _has_numbers(field, ()))


def _has_numbers(field: FieldDescriptor, above: tuple[Descriptor, ...]) -> bool:
    if field.type in (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT):
        return True
    below = field.message_type
    if below is None or below in above:
        return False
    return any(_has_numbers(other, (*above, below)) for other in below.fields)
