"""What pyproject.toml cannot say: the kernels, where a compiler is there, and the README as a package page shows it."""

import platform
import re
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

# elsewhere the same is computed through torch
here = sys.platform == "linux" and platform.machine() == "x86_64"


def kernels(name, *defined):
    return Extension(
        f"cutaway.native.{name}",
        [
            f"cutaway/native/{file}.c"
            for file in (
                *("tile", "tiles8", "blocks", "block_tiles", "linear"),
                *("attention", "step", "best", "norm", "play"),
            )
        ],
        depends=[
            "setup.py",
            *(
                f"cutaway/native/{file}.h"
                for file in ("avx2", "block_reader", "blocks", "norm", "op", "row_group", "team", "tile", "vector")
            ),
        ],
        define_macros=[(macro, "1") for macro in defined],
        # not linked to OpenMP: it is torch's that the kernels find, so that both share their threads
        extra_compile_args=["-O3", "-fopenmp", "-g0"],
        libraries=["m"],
        optional=True,
    )


class Kernels(build_ext):
    """A plain shared library, which ctypes opens: one name and nothing of the Python that builds it."""

    def get_ext_filename(self, fullname):
        return fullname.replace(".", "/") + ".so"

    def get_libraries(self, ext):
        return ext.libraries

    def build_extensions(self):
        self.compiler.linker_so = [word for word in self.compiler.linker_so if "-rpath" not in word]
        super().build_extensions()

    def build_extension(self, ext):
        # the same sources for each set of instructions: their objects must not take each other's place
        before, self.build_temp = self.build_temp, f"{self.build_temp}/{ext.name}"
        try:
            super().build_extension(ext)
        finally:
            self.build_temp = before

    def built(self):
        return any(Path(self.get_ext_fullpath(ext.name)).is_file() for ext in self.extensions or ())


class Wheel(bdist_wheel):
    """One wheel for every Python: of this platform with the kernels, of any without."""

    def run(self):
        self.run_command("build")
        if self.distribution.ext_modules and not self.get_finalized_command("build_ext").built():
            self.distribution.ext_modules = []
            self.root_is_pure = True
        super().run()

    def get_tag(self):
        return ("py3", "none", "any") if self.root_is_pure else ("py3", "none", super().get_tag()[2])


def page(readme):
    """The README for a package page, which shows no file beside it: pictures go, and links say their file."""
    parts = re.split(r"(^```.*?^```$)", readme, flags=re.MULTILINE | re.DOTALL)
    for i in range(0, len(parts), 2):  # the others are code
        text = re.sub(r"^!\[[^\]]*\]\((?!https?:)[^)]*\)\n\n?", "", parts[i], flags=re.MULTILINE)
        parts[i] = re.sub(r"\[([^\]]*)\]\((?!https?:|#)([^)]*)\)", r"\1 (`\2`)", text)
    title, rest = "".join(parts).split("\n", 1)
    return f"{title}\n\nFiles named here, and pictures, come with the source distribution.\n{rest}"


setup(
    ext_modules=[kernels("kernels"), kernels("kernels_avx2", "CW_AVX2")] if here else [],
    cmdclass={"build_ext": Kernels, "bdist_wheel": Wheel},
    long_description=page(Path(__file__).with_name("README.md").read_text("utf-8")),
    long_description_content_type="text/markdown",
)
