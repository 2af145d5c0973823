"""The kernels' tests with kernels that watch their own memory: `make sanitize`.

Compiles the kernels once more, with AddressSanitizer and UndefinedBehaviorSanitizer, into a folder of its own, and runs
the tests that call them with that library in the place of the usual one. A read or write outside of what was allocated,
or arithmetic that C does not define, ends the run with a report.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).parent
FILES = ("kernel", "panels", "text_attention", "linear", "tape", "step", "integer", "cache")
_LIBRARY = "CUTAWAY_SANITIZED"  # from this script to its own second process


def _say_why_not(reason: str) -> int:
    print(f"sanitize: skipped, since {reason}.")
    return 0


def _find(compiler: str, name: str) -> str | None:
    """A library of the compiler's; it answers with the bare name where it has none."""
    found = subprocess.run([compiler, f"-print-file-name={name}"], capture_output=True, text=True).stdout.strip()
    return str(Path(found).resolve()) if Path(found).is_absolute() else None


def main(arguments: list[str]) -> int:
    from cutaway import native

    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return _say_why_not("no C compiler is here")
    if native.LIBRARY is None:
        return _say_why_not("this machine has no kernels (they were not built, or the processor lacks AVX-512)")
    runtime = _find(compiler, "libasan.so")
    if runtime is None:
        return _say_why_not(f"{compiler} has no AddressSanitizer (libasan.so)")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "kernels.so"
        sources = sorted(str(path) for path in Path(native.__file__).parent.glob("*.c"))
        checks = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
        build = [compiler, "-O1", "-g", "-fopenmp", "-fPIC", "-shared", *checks, *sources, "-lm", "-o", str(library)]
        subprocess.run(build, check=True)
        # what Python and torch never free is not ours to report; torch throws exceptions through the watched process
        options = {"ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1", "UBSAN_OPTIONS": "print_stacktrace=1"}
        preload = [runtime, *filter(None, [_find(compiler, "libstdc++.so.6")])]
        env = os.environ | options | {"LD_PRELOAD": " ".join(preload), _LIBRARY: str(library), "OMP_NUM_THREADS": "2"}
        return subprocess.run([sys.executable, __file__, *arguments], env=env).returncode


def _run(library: str, arguments: list[str]) -> int:
    import pytest

    from cutaway import native

    native.LIBRARY = native.load(Path(library))[0]
    if native.LIBRARY is None:
        print("sanitize: the kernels that watch their memory were built, but cannot be loaded.")
        return 1
    os.environ.pop("LD_PRELOAD")  # for what the tests start themselves
    files = [str(TESTS / f"test_{name}.py") for name in FILES]
    return int(pytest.main(["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", *(arguments or files)]))


if __name__ == "__main__":
    sanitized = os.environ.pop(_LIBRARY, None)
    sys.exit(main(sys.argv[1:]) if sanitized is None else _run(sanitized, sys.argv[1:]))
