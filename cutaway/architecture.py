"""Moved to `cutaway.config.architecture`; importable from here for one release."""

from cutaway.config.architecture import *  # noqa: F403
