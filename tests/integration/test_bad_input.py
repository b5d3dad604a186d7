"""The user's mistakes: one clear line that names the field, file or id, exit code 2, never a traceback."""

import json
import shutil
from pathlib import Path

import pytest

from ifvit.checkpoint.layout import rank_file
from tests.integration.conftest import Command


@pytest.fixture(scope="module")
def short_run(tiny_recipe_file: Path, tmp_path_factory: pytest.TempPathFactory, command: Command) -> Path:
    runs_root = tmp_path_factory.mktemp("runs")
    sets = [f"runtime.runs_root={runs_root}", "train.max_steps=2", "checkpoint.every_steps=1", "sampling.prompts=[]"]
    command("ifvit", "train", tiny_recipe_file, *(part for each in sets for part in ("--set", each)))
    return runs_root / "tiny"


def one_line(stderr: str) -> str:
    assert "Traceback" not in stderr
    (line,) = [line for line in stderr.splitlines() if line.startswith("error: ")]
    return line


@pytest.mark.parametrize(
    "override, message",
    [
        ("model.num_attention_head=4", "model.num_attention_head: unknown field, did you mean num_attention_heads?"),
        ("data.shards_root=/nowhere", "data.shards_root: /nowhere/train holds no finished shards"),
        ("encoders.autoencoder=/nowhere", "encoders.autoencoder: '/nowhere' is no local folder"),
        ("encoders.scaling_factor=0.23010", "encoders.scaling_factor: is 0.2301, but the shards in"),
        ("model.num_text_tokens=16", "model.num_text_tokens: is 16, but the shards in"),
        ("model.text_hidden_size=32", "model.text_hidden_size: is 32, the text encoder"),
        ("train.micro_batch_size=4\ntrain.global_batch_size=6", "train.micro_batch_size: is 4, must divide"),
        ("runtime.attention_backend=xformers", "runtime.attention_backend: xformers does not work here"),
        ("train.init_from=/nowhere", "train.init_from: /nowhere: no model here"),
    ],
)
def test_training(override: str, message: str, tiny_recipe_file: Path, tmp_path: Path, ifvit_main: Command) -> None:
    sets = [part for each in override.split("\n") for part in ("--set", each)]
    refused = ifvit_main("train", tiny_recipe_file, "--set", f"runtime.runs_root={tmp_path}", *sets, code=2)
    assert message in one_line(refused.stderr)
    assert not (tmp_path / "tiny").exists()  # a run that was never started must not take the name


def test_shards_of_another_autoencoder(tiny_recipe_file: Path, tmp_path: Path, ifvit_main: Command) -> None:
    from diffusers import AutoencoderKL

    from ifvit.encoders.random_weights import random_autoencoder_folder

    other = AutoencoderKL.from_pretrained(random_autoencoder_folder())
    other.decoder.conv_out.bias.data += 1
    other.save_pretrained(tmp_path / "vae")
    sets = ["--set", f"runtime.runs_root={tmp_path}", "--set", f"encoders.autoencoder={tmp_path / 'vae'}"]
    refused = ifvit_main("train", tiny_recipe_file, *sets, code=2)
    assert f"encoders.autoencoder: {tmp_path / 'vae'} has other content" in one_line(refused.stderr)
    assert not (tmp_path / "tiny").exists()  # refused before anything was made


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--out", "x"], "no prompts: give --prompt or --prompts-file"),
        (["--out", "x", "--prompt", "a", "--step", "7"], "no checkpoint of step 7, only of 1, 2"),
        (
            ["--out", "x", "--prompt", "a", "--num-inference-steps", "2"],
            "sampling.num_inference_steps: is 2, must be at least 3",
        ),
        (
            ["--out", "x", "--prompt", "a", "--num-inference-steps", "5000"],
            "sampling.num_inference_steps: is 5000, must be at most",
        ),
        (["--out", "x", "--prompt", "a", "--guidance-scale", "-1"], "sampling.guidance_scale: is -1"),
        (["--out", "x", "--prompts-file", "/nowhere"], "--prompts-file /nowhere: cannot be read"),
        (
            ["--out", "x", "--prompt", "a", "--set", "sampling.solvr=3"],
            "sampling.solvr: unknown field, did you mean solver?",
        ),
        (["--out", "x", "--prompt", "a", "--recipe", "recipes/demo.yaml"], "has its own recipe; leave --recipe out"),
        (["--out", "x", "--prompt", "a", "--ema-decay", "0.5"], "--ema-decay: is 0.5, the run has 0.9"),
        (["--out", "README.md", "--prompt", "a"], "--out README.md: is a file; give a folder"),
        (["--out", "recipes", "--prompt", "a"], "--out recipes: is not empty; give another folder"),
    ],
)
def test_sampling(arguments: list[str], message: str, short_run: Path, ifvit_main: Command) -> None:
    assert message in one_line(ifvit_main("sample", short_run, *arguments, code=2).stderr)


def test_sampling_what_is_no_run(tmp_path: Path, ifvit_main: Command) -> None:
    for folder, message in ((tmp_path, "is a folder but no run"), (tmp_path / "gone", "no such run")):
        refused = ifvit_main("sample", folder, "--prompt", "a", "--out", tmp_path / "out", code=2)
        assert message in one_line(refused.stderr)


def test_a_damaged_checkpoint_is_passed_over_by_name(short_run: Path, tmp_path: Path, ifvit_main: Command) -> None:
    shutil.copytree(short_run, tmp_path / "tiny")
    newest = tmp_path / "tiny/checkpoints/step-00000002" / rank_file(0, "weights")
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)
    arguments = ["sample", tmp_path / "tiny", "--prompt", "a", "--out", tmp_path / "out"]
    taken = ifvit_main(*arguments)
    assert "rejected checkpoint" in taken.stderr and "step-00000002: rank-00000.weights.safetensors" in taken.stderr
    assert "step 1" in json.loads((tmp_path / "out/samples.json").read_text())["weights"]
    (tmp_path / "tiny/checkpoints/step-00000001/manifest.json").unlink()
    assert "no checkpoint is intact" in one_line(ifvit_main(*arguments, code=2).stderr)


def test_weights_of_another_model_to_start_from(
    short_run: Path, tiny_recipe_file: Path, tmp_path: Path, command: Command, ifvit_main: Command
) -> None:
    """Conditioning changes no shape: the names and sizes alone would let this pass."""
    ifvit_main("export", short_run, "--out", tmp_path / "export")
    sets = [f"runtime.runs_root={tmp_path}", f"train.init_from={tmp_path / 'export'}", "model.conditioning=concat"]
    arguments = [part for each in sets for part in ("--set", each)]
    refused = command("ifvit", "train", tiny_recipe_file, *arguments, code=2)
    assert "model.conditioning is cross_attention there and concat here" in one_line(refused.stderr)


def test_flops_as_json(tiny_recipe_file: Path, ifvit_main: Command) -> None:
    printed = json.loads(ifvit_main("flops", tiny_recipe_file, "--json").stdout)
    assert printed.keys() == {"parameters", "gflops", "gflops_with_attention"}


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--windows", "0"], "--windows: is 0, must be at least 1"),
        (["--batch-size", "1000"], "--batch-size: is 1000, but there are"),
        (["--synthetic", "4", "--batch-size", "5"], "--batch-size: is 5, but there are 4 samples"),
        (["--set", "data.shards_root=/nowhere"], "data.shards_root: /nowhere/train holds no finished shards"),
        (["--set", "data.shards_root=https://host/x"], "data.cache_dir: is missing"),
    ],
)
def test_benchmark_of_the_loader(
    arguments: list[str], message: str, tiny_recipe_file: Path, ifvit_main: Command
) -> None:
    assert message in one_line(ifvit_main("bench", "loader", tiny_recipe_file, *arguments, code=2).stderr)
