"""The C core's own tests (``tests/core``), built plainly and run: a program a test.

The same programs run under the sanitizers with ``make sanitize``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "core"
MUTATIONS = 1000


def run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built programs. A compiler's new warnings are no failure here."""
    build = tmp_path_factory.mktemp("core")
    run(
        "make", "-C", FOLDER, f"-j{os.cpu_count() or 1}", f"BUILD={build}", "WARNINGS=",
        f"PYTHON={sys.executable}", "build", "seeds",
    )  # fmt: skip
    return build


@pytest.mark.parametrize("name", ["test_core", "test_engine", "test_memory", "test_threads"])
def test_program_passes(programs: Path, name: str) -> None:
    run(programs / "plain" / name)


def test_mutated_scripts_leave_the_engine_whole(programs: Path) -> None:
    seeds = sorted((programs / "seeds").iterdir())
    assert seeds
    run(programs / "plain" / "fuzz_batch", "-n", str(MUTATIONS), *seeds)
