"""The record that explains a number: which code, versions and hardware."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from ifvit.runtime.environment import (
    append_attempt,
    cpu_model,
    end_attempt,
    environment_record,
    git_state,
    package_versions,
    read_attempts,
)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A git checkout with one committed package."""
    package = tmp_path / "checkout" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("one = 1\n")
    git(package.parent, "init", "--quiet")
    git(package, "add", ".")
    git(package, "-c", "user.name=test", "-c", "user.email=test@example.org", "commit", "--quiet", "-m", "first")
    return package


def git(folder: Path, *arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, stdout=subprocess.PIPE).stdout


def test_a_clean_checkout(checkout: Path) -> None:
    commit = git(checkout, "rev-parse", "HEAD").decode().strip()
    assert git_state(checkout) == {"commit": commit, "diff_sha256": None, "untracked": []}


def test_changes_have_a_digest_and_unknown_files_are_named(checkout: Path) -> None:
    (checkout / "__init__.py").write_text("one = 2\n")
    (checkout / "new.py").write_text("")
    (checkout.parent / "elsewhere.txt").write_text("")
    state = git_state(checkout)
    assert state["diff_sha256"] == hashlib.sha256(git(checkout, "diff", "HEAD")).hexdigest()
    assert state["untracked"] == ["new.py"]


def test_an_environment_inside_a_checkout_is_not_its_source(checkout: Path) -> None:
    installed = checkout.parent / ".venv" / "package"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    assert git_state(installed) == {"commit": None, "diff_sha256": None, "note": "not a git checkout"}


def test_no_checkout_and_no_git(tmp_path: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert git_state(tmp_path)["note"] == "not a git checkout"
    monkeypatch.setenv("PATH", "")
    assert git_state(checkout)["note"] == "not a git checkout"


def test_each_start_is_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys, "argv", ["ifvit", "train", "x", "--set", "data.shards_root=https://me:secret@host/a?sig=b"]
    )
    file = tmp_path / "environment.json"
    record = environment_record(
        device="cpu",
        world_size=2,
        attention_backend="sdpa",
        encoders={"autoencoder": {"name": "random-autoencoder-small"}},
        shards_sha256="0" * 64,
        parameters=44_692_644,
    )
    assert append_attempt(file, record) == 1
    assert append_attempt(file, {**record, "world_size": 1}) == 2
    attempts = json.loads(file.read_text())["attempts"]
    assert [attempt["world_size"] for attempt in attempts] == [2, 1]
    assert attempts[0]["parameters"] == 44_692_644
    assert attempts[0]["attention_backend"] == "sdpa"
    assert attempts[0]["command"] == "ifvit train x --set data.shards_root=https://host/a"
    assert {"time", "host", "command", "git", "python", "packages", "cpu", "gpus", "encoders"} <= attempts[0].keys()


def test_versions_and_processor() -> None:
    import numpy

    assert package_versions()["numpy"] == numpy.__version__
    assert "xformers" not in package_versions() or package_versions()["xformers"]
    assert cpu_model()


def test_the_end_of_a_start_is_written_into_its_own_record(tmp_path: Path) -> None:
    file = tmp_path / "environment.json"
    append_attempt(file, {"first_step": 0})
    append_attempt(file, {"first_step": 7})
    end_attempt(file, "failed", "the disk is full")
    first, second = read_attempts(file)
    assert first == {"first_step": 0}
    assert second["first_step"] == 7
    assert (second["ended"]["outcome"], second["ended"]["reason"]) == ("failed", "the disk is full")
