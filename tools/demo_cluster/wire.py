"""A slow wire: `wire.py PORT BRIDGE RATE LATENCY`, between a port of a bridge and the bridge.

Puts two tap interfaces in between and passes frames from one to the other: RATE bytes a second
at most in each direction (0: no limit), LATENCY seconds later. What does not fit into half a
second of the rate is dropped, as a switch does. Says its pid when it works; when it is killed
its interfaces go, and the port has to be put back. (Few kernels have netem, which could do this.)
"""

from __future__ import annotations

import fcntl
import os
import selectors
import struct
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
#: Longest frame, bytes; also what a wire of any rate holds at least.
FRAME = 1 << 16
#: How much of its rate a wire holds before it drops frames, seconds.
QUEUE = 0.5


class Direction:
    """Frames on their way from one interface to the other."""

    def __init__(self, rate: float, latency: float) -> None:
        self._rate = rate
        self._latency = latency
        self._free_at = 0.0  # when all that came so far has left
        self._frames: deque[tuple[float, bytes]] = deque()

    def push(self, frame: bytes, now: float) -> None:
        """Takes a frame, or drops it."""
        start = max(now, self._free_at)
        if self._rate:
            if (start - now) > max(QUEUE, FRAME / self._rate):
                return
            start = self._free_at = start + len(frame) / self._rate
        self._frames.append((start + self._latency, frame))

    def due(self, now: float) -> list[bytes]:
        """The frames that arrive now."""
        frames = []
        while self._frames and self._frames[0][0] <= now:
            frames.append(self._frames.popleft()[1])
        return frames

    def next_at(self) -> float | None:
        """When the next frame arrives."""
        return self._frames[0][0] if self._frames else None


def tap(name: str) -> int:
    """A new tap interface, by its descriptor."""
    if not Path("/dev/net/tun").exists():
        raise SystemExit("this kernel has no /dev/net/tun")
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TAP | IFF_NO_PI))
    return descriptor


def ip(*words: str) -> None:
    """Runs ip(8), which has to succeed."""
    subprocess.run(["ip", *words], check=True)


def carry(one: int, other: int, rate: float, latency: float) -> None:
    """Passes frames for ever."""
    ways = {one: (other, Direction(rate, latency)), other: (one, Direction(rate, latency))}
    readable = selectors.DefaultSelector()
    for descriptor in ways:
        readable.register(descriptor, selectors.EVENT_READ)
    while True:
        waiting = [at for _, way in ways.values() if (at := way.next_at()) is not None]
        timeout = max(0.0, min(waiting) - time.monotonic()) if waiting else None
        for key, _ in readable.select(timeout):
            try:
                ways[key.fd][1].push(os.read(key.fd, FRAME), time.monotonic())
            except BlockingIOError:
                continue
        now = time.monotonic()
        for target, way in ways.values():
            for frame in way.due(now):
                try:
                    os.write(target, frame)
                except (BlockingIOError, OSError):
                    continue  # the other end is full or down: lost, as on any wire


def main(port: str, bridge: str, rate: str, latency: str) -> None:
    """Puts the wire in between, and never ends."""
    one, other, between = f"{port}-a", f"{port}-b", f"{port}-w"
    ends = tap(one), tap(other)
    subprocess.run(["ip", "link", "delete", between], capture_output=True, check=False)
    ip("link", "add", between, "type", "bridge")
    ip("link", "set", between, "up")
    for interface, master in ((one, between), (other, bridge), (port, between)):
        ip("link", "set", interface, "master", master)
    ip("link", "set", one, "up")
    ip("link", "set", other, "up")
    pid = Path("/proc/self").readlink()
    sys.stdout.write(f"{pid}\n")
    sys.stdout.close()
    carry(*ends, float(rate), float(latency))


if __name__ == "__main__":
    main(*sys.argv[1:])
