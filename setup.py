"""What pyproject.toml cannot say: the kernels are compiled where a compiler is there, and left out where not."""

import platform
import sys

from setuptools import Extension, setup

# elsewhere the same is computed through torch
here = sys.platform == "linux" and platform.machine() == "x86_64"
kernels = Extension(
    "cutaway.native.kernels",
    [f"cutaway/native/{name}.c" for name in ("tile", "linear", "attention", "step", "norm", "play")],
    depends=[f"cutaway/native/{name}.h" for name in ("norm", "op", "tile", "vector")],
    # not linked to OpenMP: it is torch's that the kernels find, so that both share their threads
    extra_compile_args=["-O3", "-fopenmp"],
    libraries=["m"],
    optional=True,
)
setup(ext_modules=[kernels] if here else [])
