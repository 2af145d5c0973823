"""Moved to `cutaway.nn.kv_cache`; importable from here for one release."""

from cutaway.nn.kv_cache import *  # noqa: F403
