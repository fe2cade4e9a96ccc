"""Faults as values: a kind, a sentence for a person; and one table to gRPC codes and exit codes."""

from __future__ import annotations

import os
from enum import Enum

import grpc


class Kind(Enum):
    """Whose fault it is, and with that how every face reports it."""

    USAGE = "usage"  # the command line is wrong
    DATA = "data"  # what was given cannot be read
    NO_INPUT = "no input"  # a file is missing or unreadable
    NOT_FOUND = "not found"
    AMBIGUOUS = "ambiguous"
    EXISTS = "exists"
    PRECONDITION = "precondition"
    UNAVAILABLE = "unavailable"  # a daemon is not there, or cannot do it now
    DENIED = "denied"  # the caller has another role
    UNAUTHENTICATED = "unauthenticated"  # nobody knows who the caller is
    LIMIT = "limit"  # more than a daemon takes
    CONFIG = "config"
    CANNOT_CREATE = "cannot create"
    BEHIND = "behind"  # a reader asked for events that are gone
    LOST = "lost"  # events went before a reader came to them
    INTERRUPTED = "interrupted"
    INTERNAL = "internal"


#: The one table: kind -> (gRPC code, exit code of sysexits(3)).
CODES: dict[Kind, tuple[grpc.StatusCode, int]] = {
    Kind.USAGE: (grpc.StatusCode.INVALID_ARGUMENT, os.EX_USAGE),
    Kind.DATA: (grpc.StatusCode.INVALID_ARGUMENT, os.EX_DATAERR),
    Kind.NO_INPUT: (grpc.StatusCode.NOT_FOUND, os.EX_NOINPUT),
    Kind.NOT_FOUND: (grpc.StatusCode.NOT_FOUND, os.EX_DATAERR),
    Kind.AMBIGUOUS: (grpc.StatusCode.FAILED_PRECONDITION, os.EX_DATAERR),
    Kind.EXISTS: (grpc.StatusCode.ALREADY_EXISTS, os.EX_CANTCREAT),
    Kind.PRECONDITION: (grpc.StatusCode.FAILED_PRECONDITION, os.EX_DATAERR),
    Kind.UNAVAILABLE: (grpc.StatusCode.UNAVAILABLE, os.EX_UNAVAILABLE),
    Kind.DENIED: (grpc.StatusCode.PERMISSION_DENIED, os.EX_NOPERM),
    Kind.UNAUTHENTICATED: (grpc.StatusCode.UNAUTHENTICATED, os.EX_NOPERM),
    Kind.LIMIT: (grpc.StatusCode.RESOURCE_EXHAUSTED, os.EX_DATAERR),
    Kind.CONFIG: (grpc.StatusCode.FAILED_PRECONDITION, os.EX_CONFIG),
    Kind.CANNOT_CREATE: (grpc.StatusCode.FAILED_PRECONDITION, os.EX_CANTCREAT),
    Kind.BEHIND: (grpc.StatusCode.OUT_OF_RANGE, os.EX_DATAERR),
    Kind.LOST: (grpc.StatusCode.DATA_LOSS, os.EX_DATAERR),
    Kind.INTERRUPTED: (grpc.StatusCode.ABORTED, os.EX_TEMPFAIL),
    Kind.INTERNAL: (grpc.StatusCode.INTERNAL, os.EX_SOFTWARE),
}

#: What a client makes of a code; the first kind that has it in CODES, but for these.
_KINDS: dict[grpc.StatusCode, Kind] = {
    grpc.StatusCode.INVALID_ARGUMENT: Kind.DATA,
    grpc.StatusCode.NOT_FOUND: Kind.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION: Kind.PRECONDITION,
    grpc.StatusCode.ALREADY_EXISTS: Kind.EXISTS,
    grpc.StatusCode.UNAVAILABLE: Kind.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: Kind.UNAVAILABLE,
    grpc.StatusCode.PERMISSION_DENIED: Kind.DENIED,
    grpc.StatusCode.UNAUTHENTICATED: Kind.UNAUTHENTICATED,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Kind.LIMIT,
    grpc.StatusCode.OUT_OF_RANGE: Kind.BEHIND,
    grpc.StatusCode.DATA_LOSS: Kind.LOST,
    grpc.StatusCode.ABORTED: Kind.INTERRUPTED,
}


class Fault(Exception):
    """Something is wrong, and a person is told what, where, and how to mend it.

    `kind` decides gRPC code and exit code; `what` is a sentence without a final
    full stop; `remedy`, if there is one, says what to do.
    """

    def __init__(self, kind: Kind, what: str, remedy: str = "") -> None:
        super().__init__(what)
        self.kind = kind
        self.what = what
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.what}\n  {self.remedy}" if self.remedy else self.what

    @property
    def code(self) -> grpc.StatusCode:
        """The gRPC status code of this kind."""
        return CODES[self.kind][0]

    @property
    def exit_code(self) -> int:
        """The exit code of this kind, of sysexits(3)."""
        return CODES[self.kind][1]


def fault_of(error: grpc.RpcError, target: str, program: str) -> Fault:
    """What a failed call to `target` means for a person; `program` is what should serve there."""
    code = error.code()
    text = str(error.details() or "")
    kind = _KINDS.get(code, Kind.INTERNAL)
    if kind is Kind.UNAVAILABLE and ("connect" in text.lower() or not text):
        return Fault(
            kind,
            f"{program} does not answer at {target}",
            f"start it with '{program} serve', or name its address with --address",
        )
    what, _, remedy = text.partition("\n")
    return Fault(kind, what or f"{target} answered {code.name}", remedy.strip())
