"""The backend that a process takes: right at the model's own shapes, the fastest of those, timed once."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ifvit.config.errors import UserError
from ifvit.config.schema import ModelConfig
from ifvit.model import attention as attention_module
from ifvit.model import attention_choice
from ifvit.model.attention import BACKENDS, math_attention, sdpa_attention
from ifvit.model.attention_check import attention_calls, backend_failure
from ifvit.model.attention_choice import AttentionChoice, activate_for_sampling, choose_for_training

CPU = torch.device("cpu")
SMALL = ModelConfig.model_validate(
    {"sample_size": 8, "hidden_size": 32, "num_attention_heads": 2, "depth": 4, "num_text_tokens": 5,
     "fusion": {"schedule": "intermediate", "num_image_blocks": 1, "num_text_blocks": 1}}
)  # fmt: skip


@pytest.fixture(autouse=True)
def own_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test's choice reaches another one."""
    monkeypatch.setattr(attention_module, "_active", {})


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, float]]:
    """Candidates are timed on the CPU, too, and take what the test says; those it does not name are not asked."""
    seconds = {"sdpa": 2.0, "math": 1.0}
    monkeypatch.setattr(attention_choice, "is_timed", lambda device: True)
    monkeypatch.setitem(attention_choice.CANDIDATES, "cpu", ("sdpa", "math"))
    monkeypatch.setattr(
        attention_choice, "step_seconds", lambda names, *arguments: {name: seconds[name] for name in names}
    )
    yield seconds


def chosen(folder: Path, name: str = "auto", dtype: torch.dtype = torch.float32, **more: str) -> AttentionChoice:
    return choose_for_training(name, SMALL, 4, dtype, CPU, folder, **more)


def with_nan_gradient(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Right forward; the last key's gradient is NaN, as in a kernel that does not mask an odd length."""
    key = key + 0
    key.register_hook(lambda gradient: gradient.index_fill(2, torch.tensor([key.shape[2] - 1]), float("nan")))
    return sdpa_attention(query, key, value)


def test_the_calls_are_those_of_the_model() -> None:
    calls = attention_calls(SMALL, 3)
    assert {(call.query.shape, call.key.shape): count for call, count in calls.items()} == {
        ((3, 2, 5, 16), (3, 2, 5, 16)): 1,  # text
        ((3, 2, 17, 16), (3, 2, 17, 16)): 2,  # image
        ((3, 2, 17, 16), (3, 2, 22, 16)): 3,  # image asks image and text
    }
    packed = next(call for call in calls if call.key.shape[2] == 17)
    assert packed.key.stride == (17 * 96, 16, 96, 1)  # a part of the packed product


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_cpu_nothing_is_timed(dtype: torch.dtype, tmp_path: Path) -> None:
    assert chosen(tmp_path, dtype=dtype) == AttentionChoice("sdpa", "the first that is right", {}, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["xformers", "cudnn"])
def test_a_backend_that_does_not_work_here_is_the_users_error(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"runtime\.attention_backend: {name} does not work here: .*; use auto"):
        chosen(tmp_path, name)
    with pytest.raises(UserError, match=rf"runtime\.attention_backend: {name} does not work here"):
        activate_for_sampling(name, SMALL, CPU)


def test_a_named_backend_is_used(tmp_path: Path) -> None:
    assert chosen(tmp_path, "math").backend == "math"
    assert activate_for_sampling("math", SMALL, CPU).backend == "math"
    assert attention_module._active == {torch.float32: math_attention}


def test_images_are_made_in_float32_whatever_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(attention_choice.NOT_IN_FLOAT32, "cpu", ("flash",))
    choice = activate_for_sampling("flash", SMALL, CPU)
    assert choice.backend == "sdpa"
    assert choice.notices == ("attention: flash has no float32, in which images are made: sdpa makes them",)
    assert attention_module._active == {torch.float32: sdpa_attention}


@pytest.mark.fault(
    "F25",
    injected="an attention backend whose gradient of the last key is NaN",
    detected="at start, by a backward pass at the model's shapes compared with float32",
    recovered="the next backend is used, and the reason said once",
    lost="nothing",
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nan_gradients_are_rejected(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Fault F25."""
    monkeypatch.setitem(BACKENDS, "sdpa", with_nan_gradient)
    choice = chosen(tmp_path, dtype=dtype)
    assert choice.backend == "math"
    assert choice.rejected["sdpa"].startswith("its gradient of the key has NaN at 2 x 2 heads, ")
    assert choice.notices == (f"attention: sdpa is not used: {choice.rejected['sdpa']}",)
    with pytest.raises(UserError, match="sdpa does not work here: its gradient of the key has NaN"):
        chosen(tmp_path, "sdpa", dtype)


@pytest.mark.parametrize("error", [OSError, AttributeError, ImportError, RuntimeError, ValueError])
def test_a_package_that_cannot_be_loaded_is_passed_over(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As xformers built for another CUDA, or for another torch."""

    def broken(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        raise error("libcudart.so.12: cannot open shared object file")

    monkeypatch.setitem(BACKENDS, "sdpa", broken)
    choice = chosen(tmp_path)
    assert choice.backend == "math"
    assert choice.rejected["sdpa"].endswith("libcudart.so.12: cannot open shared object file")


def test_a_wrong_row_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """One query's output in one head of one sample, in bf16."""

    def wrong(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        output = sdpa_attention(query, key, value).clone()
        output[-1, -1, -1] = 0
        return output

    monkeypatch.setitem(BACKENDS, "sdpa", wrong)
    failure = backend_failure("sdpa", attention_calls(SMALL, 2), torch.bfloat16, CPU)
    assert failure is not None and failure.startswith("its output is off by ")


def test_the_fastest_is_taken_and_timed_once(timed: dict[str, float], tmp_path: Path) -> None:
    first = chosen(tmp_path)
    assert (first.backend, first.reason, first.seconds) == ("math", "the fastest", {"sdpa": 2.0, "math": 1.0})
    timed["math"] = 3.0
    again = chosen(tmp_path)
    assert (again.backend, again.reason, again.seconds) == ("math", "the fastest when it was timed", first.seconds)
    assert chosen(tmp_path, dtype=torch.bfloat16).backend == "sdpa"  # another key, another file
    assert len(list(tmp_path.iterdir())) == 2


def test_what_was_fastest_is_still_checked(
    timed: dict[str, float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    timed["sdpa"] = 0.5
    assert chosen(tmp_path).backend == "sdpa"
    monkeypatch.setitem(BACKENDS, "sdpa", with_nan_gradient)
    assert (chosen(tmp_path).backend, chosen(tmp_path).backend) == ("math", "math")


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b'{"fastest": 3}', b'{"fastest": {"backend": "fast"}}', b"\xff\x00"]
)
def test_a_damaged_file_is_timed_again(damage: bytes, timed: dict[str, float], tmp_path: Path) -> None:
    chosen(tmp_path)
    (file,) = tmp_path.iterdir()
    whole = json.loads(file.read_bytes())
    file.write_bytes(damage)
    choice = chosen(tmp_path)
    assert choice.reason == "the fastest" and json.loads(file.read_bytes()) == whole
    assert choice.notices[0].startswith(f"attention: {file} cannot be used (")


def test_a_folder_that_cannot_be_written_is_no_error(timed: dict[str, float], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    choice = chosen(tmp_path / "file")
    assert choice.backend == "math"
    assert choice.notices[-1].endswith("cannot be written (File exists), timed at each start")


def test_a_run_keeps_what_it_had(timed: dict[str, float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert chosen(tmp_path).backend == "math"
    kept = chosen(tmp_path, earlier="sdpa")
    assert (kept.backend, kept.reason) == ("sdpa", "as this run had before")
    monkeypatch.setitem(BACKENDS, "sdpa", with_nan_gradient)
    assert chosen(tmp_path, earlier="sdpa").backend == "math"


def test_seconds_are_of_all_calls_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(float(tick) for tick in range(10_000))
    monkeypatch.setattr(attention_choice.time, "perf_counter", lambda: next(clock))
    calls = attention_calls(SMALL, 2)
    assert attention_choice.step_seconds(["sdpa", "math"], calls, torch.float32, CPU) == {"sdpa": 6.0, "math": 6.0}
