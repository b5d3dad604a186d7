"""The wheel, as `pip install` from a checkout makes it."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def tracked(repository: Path) -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=repository, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.split("\0") if (repository / name).is_file()]


@pytest.fixture(scope="module")
def wheel(tracked: list[str], repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: setuptools leaves build/ and an egg-info where it builds."""
    checkout, out = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("wheel")
    for name in tracked:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(repository / name, checkout / name)
    command = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "-w", str(out)]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = out.glob("*.whl")
    return made


def test_the_wheel_has_both_packages_and_the_bundled_encoders(
    wheel: Path, tracked: list[str], repository: Path
) -> None:
    expected = {
        name
        for name in tracked
        if name.startswith("ifvit/encoders/bundled/")
        or (name.startswith(("ifvit/", "data_prep/")) and name.endswith(".py"))
    }
    assert any(name.endswith(".safetensors") for name in expected)
    with zipfile.ZipFile(wheel) as archive:
        assert {name for name in archive.namelist() if ".dist-info/" not in name} == expected
        for name in expected:
            assert archive.read(name) == (repository / name).read_bytes(), name
