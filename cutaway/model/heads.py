"""Moved to `cutaway.models.lm_heads`; importable from here for one release."""

from cutaway.models.lm_heads import *  # noqa: F403
