"""Files of scan records: plain or compressed with zstd, gzip or bzip2, or standard input."""

from __future__ import annotations

import bz2
import gzip
import io
import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, cast

import zstandard

#: How much text to have in hand at once, in bytes.
PIECE = 1 << 18

#: zstd expands 4 bytes to 128 KiB at most, so this is never more than 32 MiB of text.
_ZSTD_PIECE = 1 << 10

_BROKEN = (EOFError, zlib.error, zstandard.ZstdError)


class ScanFileError(Exception):
    """A file that can not be read. The text names it; `status` is an exit code of sysexits(3)."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class _Zstd(io.RawIOBase):
    """Decompresses; the reader that zstandard has takes a file that was cut off for whole."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._begun = False
        self._ahead = b""  # input after the end of a frame
        self._text = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._text:
            piece = self._ahead or self._source.read(_ZSTD_PIECE)
            self._ahead = b""
            if not piece:
                if self._begun:
                    raise EOFError("it ends in the middle")
                return 0
            self._text = memoryview(self._frame.decompress(piece))
            self._begun = True
            if self._frame.eof:
                self._ahead = self._frame.unused_data
                self._frame = zstandard.ZstdDecompressor().decompressobj()
                self._begun = False
        size = min(len(buffer), len(self._text))
        buffer[:size] = self._text[:size]
        self._text = self._text[size:]
        return size


class ScanFile:
    """A scan that can be read from the beginning as often as one likes.

    Whether it is compressed is seen by its first bytes. Standard input (`-`), and
    whatever else can not be read twice, is kept in an unnamed temporary file.
    """

    def __init__(self, path: str) -> None:
        """Opens it; raises ScanFileError."""
        self.name = "standard input" if path == "-" else path
        try:
            self._file = _twice(sys.stdin.buffer if path == "-" else _open(path))
            self._stamp = self._changed_at()
            self.rewind()
        except OSError as error:
            raise self._unreadable(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def rewind(self) -> None:
        """The next read is from the beginning."""
        self._file.seek(0)
        magic = self._file.read(4)
        self._file.seek(0)
        self._text = _decompressed(self._file, magic)

    def read(self, size: int) -> bytes:
        """The next `size` bytes of text, fewer only at the end; raises ScanFileError."""
        try:
            return self._text.read(size)
        except (*_BROKEN, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise self._unreadable(error) from error
            why = f"{self.name}: it is compressed, but damaged or cut off: {error}"
            raise ScanFileError(why, os.EX_DATAERR) from error

    def pieces(self) -> Iterator[bytes]:
        """The whole text from the beginning; raises ScanFileError."""
        self.rewind()
        while piece := self.read(PIECE):
            yield piece

    def check_unchanged(self) -> None:
        """Raises ScanFileError if somebody wrote to the file since it was opened."""
        if self._changed_at() != self._stamp:
            raise ScanFileError(
                f"{self.name}: it was changed while it was read; try again", os.EX_TEMPFAIL
            )

    def _changed_at(self) -> tuple[int, int]:
        status = os.fstat(self._file.fileno())
        return status.st_size, status.st_mtime_ns

    def _unreadable(self, error: OSError) -> ScanFileError:
        return ScanFileError(f"{self.name}: {error.strerror or error}", os.EX_NOINPUT)


def _open(path: str) -> BinaryIO:
    return Path(path).open("rb")


def _twice(source: BinaryIO) -> BinaryIO:
    """The same, or a copy of it if it is not a file that can be read from the beginning again."""
    if source is not sys.stdin.buffer and source.seekable():
        return source
    copy = tempfile.TemporaryFile(prefix="clusterdep-")  # noqa: SIM115
    try:
        shutil.copyfileobj(source, copy, PIECE)
        copy.flush()
    except OSError as error:
        where = f"it can not be copied to {tempfile.gettempdir()} (see TMPDIR): {error.strerror}"
        raise OSError(error.errno, where) from error
    return cast(BinaryIO, copy)


def _decompressed(file: BinaryIO, magic: bytes) -> BinaryIO:
    if magic == b"\x28\xb5\x2f\xfd":
        return cast(BinaryIO, io.BufferedReader(_Zstd(file), PIECE))
    if magic[:2] == b"\x1f\x8b":
        return cast(BinaryIO, gzip.GzipFile(fileobj=file))
    if magic[:3] == b"BZh":
        return cast(BinaryIO, bz2.BZ2File(file))
    return file
