"""Builds the extension ``collectord.engine._core`` out of its Cython face and the C core."""

import os
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup

CORE = sorted(str(path) for path in Path("csrc").glob("*.c"))
HEADERS = sorted(str(path) for path in Path("csrc").glob("*.h"))

setup(
    ext_modules=cythonize(
        [
            Extension(
                "collectord.engine._core",
                ["collectord/engine/_core.pyx", *CORE],
                include_dirs=["csrc", numpy.get_include()],
                depends=HEADERS,
                define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
                # No contraction: a fused multiply-add would differ from the reference in the last
                # bits of the EWM.
                extra_compile_args=[
                    "-std=c11",
                    "-O3",
                    "-ffp-contract=off",
                    "-fvisibility=hidden",
                    "-pthread",
                    *os.environ.get("COLLECTORD_CFLAGS", "").split(),
                ],
                extra_link_args=["-pthread", *os.environ.get("COLLECTORD_LDFLAGS", "").split()],
            )
        ],
        language_level=3,
    ),
)
