"""Moved to `cutaway.models.backbone`; importable from here for one release."""

from cutaway.models.backbone import *  # noqa: F403
