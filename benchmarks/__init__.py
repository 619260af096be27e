"""Comparisons with other implementations."""

import common  # noqa: F401 - before torch, whose threads it tells how to wait
