"""Moved to `cutaway.models.family`; importable from here for one release."""

from cutaway.models.family import *  # noqa: F403
