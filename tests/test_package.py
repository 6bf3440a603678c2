"""The source distribution and the wheel made of it: both build, and what they install works."""

import os
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent
TESTED_WITH = {
    "Makefile",
    "benchmarks/__main__.py",
    "csrc/engine.c",
    "tests/conftest.py",
    "tests/core/Makefile",
    "tests/core/harness.c",
    "tests/daemon.py",
    "tests/vectors/sum-ewm.json.gz",
}
"""Some of what ``make test`` needs: it works from the source distribution too."""
BUILT = (".so", ".o", ".pyc", "__pycache__", "engine/_core.c")


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_wheel_built_from_the_source_distribution_works_in_an_empty_environment(
    tmp_path: Path,
) -> None:
    # Without naming a kind, build makes the wheel out of the source distribution.
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path, ROOT, cwd=tmp_path)
    (source,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert held >= TESTED_WITH
    assert not [name for name in held if name.endswith(BUILT)]
    (wheel,) = tmp_path.glob("*.whl")

    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", wheel, cwd=tmp_path)

    version = run(tmp_path / "venv" / "bin" / "collectord", "--version", cwd=tmp_path)
    assert version.startswith("collectord ")
    assert "list" in run(tmp_path / "venv" / "bin" / "collectorctl", "--help", cwd=tmp_path)
    checked = run(python, "-m", "collectord", "--check_config", cwd=tmp_path)
    assert "uve_proxy_list" in checked
    here = run(python, "-c", "import collectord; print(collectord.__file__)", cwd=tmp_path)
    assert here.startswith(os.fspath(tmp_path))
    typed = run(
        python,
        "-c",
        "from importlib.resources import files as f; p = f('collectord');"
        "print(p.joinpath('py.typed').is_file(), p.joinpath('engine/_core.pyi').is_file())",
        cwd=tmp_path,
    )
    assert typed.split() == ["True", "True"]
