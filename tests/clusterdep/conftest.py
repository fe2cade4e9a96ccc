"""What tests of clusterdep share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from dep_daemon import Daemon


@pytest.fixture
async def dep(tmp_path: Path) -> AsyncIterator[Daemon]:
    """A fresh daemon."""
    there = Daemon(tmp_path / "state")
    await there.start()
    yield there
    await there.stop()
