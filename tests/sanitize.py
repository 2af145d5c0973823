"""The kernels' tests with kernels that watch their own memory: `make sanitize`.

Compiles the kernels once more for each set of instructions that this processor has, with AddressSanitizer and
UndefinedBehaviorSanitizer, into a folder of its own, and runs the tests that call them with that library in the place
of the usual one. AVX-VNNI is tried through AVX-512's own instruction for the same. A read or write outside of what was
allocated, or arithmetic that C does not define, ends the run with a report.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).parent
INT8 = ("nn/cpu/test_int8.py", "nn/cpu/test_ops.py")
FILES = (
    *INT8,
    "nn/cpu/test_int8_tiles.py",
    "nn/cpu/test_tile_order.py",
    "nn/cpu/test_packed_weight.py",
    "nn/cpu/test_team.py",
    "nn/cpu/test_varlen_attention.py",
    "nn/test_linear.py",
    "nn/test_kernel_graph.py",
    "nn/test_block_graph.py",
    "nn/test_kv_cache.py",
    "models/test_decode_step.py",
)
# macros for the compiler, the set of instructions, and what is tested
BUILDS = (((), "avx512", FILES), (("CW_AVX2",), "avx2", FILES), (("CW_AVX2", "CW_TRY_VNNI"), "avx2", INT8))
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
        return _say_why_not(f"this machine has no kernels ({native.MISSING})")
    runtime = _find(compiler, "libasan.so")
    if runtime is None:
        return _say_why_not(f"{compiler} has no AddressSanitizer (libasan.so)")
    # what Python and torch never free is not ours to report; torch throws exceptions through the watched process
    options = {"ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1", "UBSAN_OPTIONS": "print_stacktrace=1"}
    preload = [runtime, *filter(None, [_find(compiler, "libstdc++.so.6")])]
    checks = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
    folder = Path(native.__file__).parent
    sources = sorted(str(path) for path in folder.glob("*.c"))
    runnable = {name for name, (file, label) in native.INSTRUCTIONS.items() if native.load(folder / file, label)[0]}
    for macros, name, files in BUILDS:
        if name not in runnable or ("CW_TRY_VNNI" in macros and "avx512" not in runnable):
            continue
        print(f"sanitize: {name} {' '.join(macros)}", flush=True)
        with tempfile.TemporaryDirectory() as made:
            library = Path(made) / "kernels.so"
            defined = [f"-D{macro}" for macro in macros]
            flags = ["-O1", "-g", "-fopenmp", "-fPIC", "-shared", *checks, *defined]
            subprocess.run([compiler, *flags, *sources, "-lm", "-o", str(library)], check=True)
            env = os.environ | options | {"LD_PRELOAD": " ".join(preload), "OMP_NUM_THREADS": "2"}
            env |= {_LIBRARY: f"{name}:{library}", "CUTAWAY_CPU": name}
            given = arguments or [str(TESTS / file) for file in files]
            code = subprocess.run([sys.executable, __file__, *given], env=env).returncode
            if code:
                return code
    return 0


def _run(library: str, arguments: list[str]) -> int:
    import pytest

    from cutaway import native

    name, _, path = library.partition(":")
    native.LIBRARY = native.load(Path(path), native.INSTRUCTIONS[name].label)[0]
    native.INSTRUCTIONS = {name: native.INSTRUCTIONS[name]}  # no test takes the unwatched ones
    if native.LIBRARY is None:
        print("sanitize: the kernels that watch their memory were built, but cannot be loaded.")
        return 1
    os.environ.pop("LD_PRELOAD")  # for what the tests start themselves
    return int(pytest.main(["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", *arguments]))


if __name__ == "__main__":
    sanitized = os.environ.pop(_LIBRARY, None)
    sys.exit(main(sys.argv[1:]) if sanitized is None else _run(sanitized, sys.argv[1:]))
