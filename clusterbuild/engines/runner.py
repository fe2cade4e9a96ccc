"""What differs between the engines of hosts: a way to run commands there and move files."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from clusterbuild.engines import Kind


class RunnerError(Exception):
    """A command or transfer could not be done; `kind` says what sort of trouble it is."""

    def __init__(self, kind: Kind, why: str) -> None:
        super().__init__(kind, why)
        self.kind = kind
        self.why = why


@dataclass(frozen=True)
class Completed:
    """A command that has ended."""

    status: int
    out: bytes
    err: bytes


def script_words(shell: str, script: str, *words: str) -> list[str]:
    """The command that runs a script of several lines with `words` as $1, $2...

    The script stands in one line: login shells, through which ssh passes every command, do
    not all take more within quotes.
    """
    line = script.replace("\\", r"\\").replace("\n", r"\n").replace("!", r"\0041")
    return [shell, "-c", 'eval "$(printf %b "$0")"', line, *words]


class Runner(Protocol):
    """A way to one host. Methods raise RunnerError, and may run at the same time."""

    async def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float, limit: int = 1 << 20
    ) -> Completed:
        """Runs a command in a session of its own until it ends, or `timeout` seconds are over.

        UNREACHABLE if time is up; BROKEN if it prints more than `limit` bytes.
        """

    def lines(self, argv: Sequence[str]) -> AsyncGenerator[bytes, None]:
        """Runs a command and yields its lines without their ends, as they come.

        Its standard input stays open until the generator is closed. Ends when the command does;
        raises RunnerError if the connection breaks.
        """

    async def put(self, source: Path, target: str, sha256: str) -> None:
        """Puts a file on the host: `target` is there whole and right, or as it was before."""

    async def get(self, source: str, target: Path, size: int) -> None:
        """Brings a plain file of exactly `size` bytes here; ABSENT if there is no such file.

        BROKEN if it is something else, or of another size. `target` may be left incomplete.
        """

    async def close(self) -> None:
        """Lets go of the host."""
