"""What pyproject.toml cannot say: the kernels are compiled where a compiler is there, and left out where not."""

import platform
import sys

from setuptools import Extension, setup

# elsewhere the same is computed through torch
here = sys.platform == "linux" and platform.machine() == "x86_64"
kernels = Extension(
    "cutaway.native.kernels",
    ["cutaway/native/kernels.c"],
    extra_compile_args=["-O3", "-fopenmp"],
    extra_link_args=["-fopenmp"],
    optional=True,
)
setup(ext_modules=[kernels] if here else [])
