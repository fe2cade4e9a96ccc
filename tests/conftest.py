"""How Hypothesis runs in all tests: the same examples every time, and no clock.

`pytest --hypothesis-profile=thorough` looks for much longer, at other examples each time.
"""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("usual", deadline=None, derandomize=True, max_examples=200)
settings.register_profile("thorough", deadline=None, max_examples=5000)
settings.load_profile("usual")
