"""What scripts ask for before they begin: versions of packages, and that upstream may count who runs an example."""

from __future__ import annotations

import logging
import re
import sys
from importlib.metadata import PackageNotFoundError, version

from cutaway.errors import CutawayError

log = logging.getLogger("cutaway")
_COMPARE = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    ">=": lambda a, b: a >= b,
    ">": lambda a, b: a > b,
}


class VersionError(CutawayError, ImportError):
    """A package is missing, or of a version that was not asked for."""


def parts(text: str) -> tuple[int, ...]:
    """The numbers of a version, "2.13.0+cpu" -> (2, 13, 0); zeros at the end say nothing."""
    found = re.match(r"\s*v?(\d+(?:\.\d+)*)", text)
    numbers = [int(n) for n in found[1].split(".")] if found else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def check_min_version(min_version: str) -> None:
    """Does nothing: a script asks here for a version of upstream, and that number says nothing of cutaway's."""
    log.debug("check_min_version(%r) names a version of upstream, which says nothing of this one.", min_version)


def require_version(requirement: str, hint: str | None = None) -> None:
    """Asks for a package, such as "datasets>=2.0" or "python>=3.11", several conditions apart by commas.

    Raises:
        VersionError: it is not installed, or its version does not fit; `hint` says what to do.
    """
    more = f"\n{hint}" if hint else ""
    found = re.fullmatch(r"\s*([\w.\-\[\]]+)\s*((?:[<>=!~]=?[^,]+,?)*)\s*", requirement)
    if found is None:
        raise VersionError(f"{requirement!r} is no requirement; write one such as 'datasets>=2.0'.")
    package, conditions = found[1].partition("[")[0], found[2]
    if package == "transformers":
        return  # the script means the library whose names these are
    try:
        have = ".".join(map(str, sys.version_info[:3])) if package == "python" else version(package)
    except PackageNotFoundError:
        raise VersionError(f"{requirement} is required, but {package} is not installed.{more}") from None
    for condition in filter(None, (c.strip() for c in conditions.split(","))):
        asked = re.fullmatch(r"(<=|>=|==|!=|<|>)\s*(\S+)", condition)
        if asked is None:
            raise VersionError(f"{requirement!r}: {condition!r} is no condition; write one such as '>=2.0'.")
        if not _COMPARE[asked[1]](parts(have), parts(asked[2])):
            raise VersionError(f"{requirement} is required, but found {package}=={have}.{more}")


def require_version_core(requirement: str) -> None:
    """`require_version`, as upstream calls it for its own needs."""
    require_version(requirement)


def send_example_telemetry(example_name: str, *args: object, **kwargs: object) -> None:
    """Sends nothing: cutaway counts nobody. The call is there so that upstream's examples run."""
    log.debug("send_example_telemetry(%r): nothing is sent.", example_name)
