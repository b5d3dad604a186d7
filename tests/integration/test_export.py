"""`ifvit export`: a model folder with the parts that diffusers knows, for sampling and for training on."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, DPMSolverSinglestepScheduler
from transformers import CLIPTextModel, CLIPTokenizer

import ifvit
from ifvit.checkpoint.load import newest_checkpoint
from ifvit.commands.trained_model import load_trained_model
from ifvit.diffusion.solver import make_scheduler
from ifvit.encoders.identity import state_digest
from ifvit.encoders.loading import load_encoders
from tests.distributed.training_runs import final_tensors
from tests.integration.conftest import Command
from tests.training_fixtures import Train


@pytest.fixture(scope="module")
def average(undisturbed: Path) -> dict[str, torch.Tensor]:
    """The run's first average at its end, by parameter."""
    tensors = final_tensors(undisturbed)
    return {name.removeprefix("ema-0.9/"): tensor for name, tensor in tensors.items() if name.startswith("ema-0.9/")}


def test_what_diffusers_knows_is_in_its_layout(undisturbed: Path, tmp_path: Path, ifvit_main: Command) -> None:
    export = tmp_path / "export"
    ifvit_main("export", undisturbed / "tiny", "--out", export)
    recipe = load_trained_model(str(export)).recipe
    ours = make_scheduler(recipe.diffusion, recipe.sampling.solver)
    theirs = DPMSolverSinglestepScheduler.from_pretrained(export, subfolder="scheduler")
    values = [{key: value for key, value in config.items() if key[0] != "_"} for config in (theirs.config, ours.config)]
    assert values[0] == values[1]
    index = json.loads((export / "model_index.json").read_text())
    assert index["scheduler"] == ["diffusers", "DPMSolverSinglestepScheduler"]
    identities = json.loads((export / "environment.json").read_text())["attempts"][-1]["encoders"]
    text_encoder = identities["text_encoder"]
    for name, location, sha256 in (
        ("vae", "random-autoencoder-small", identities["autoencoder"]["sha256"]),
        ("text_encoder", "random-clip-small", text_encoder["sha256"]),
        ("tokenizer", "random-clip-small", text_encoder["tokenizer_sha256"]),
    ):
        assert index[name] == [None, None]
        assert json.loads((export / name / "reference.json").read_text()) == {"location": location, "sha256": sha256}


def test_copied_encoders_go_with_the_model(undisturbed: Path, tmp_path: Path, ifvit_main: Command) -> None:
    written, moved = tmp_path / "export", tmp_path / "moved"
    ifvit_main("export", undisturbed / "tiny", "--out", written, "--with-encoders")
    written.rename(moved)
    trained = load_trained_model(str(moved))
    assert trained.recipe.encoders.autoencoder == str(moved / "vae")
    encoders = load_encoders(trained.recipe, torch.device("cpu"))
    trained.check_encoders(encoders)
    assert encoders.notice.startswith("Random weights in the autoencoder and the text encoder")
    index = json.loads((moved / "model_index.json").read_text())
    assert index["vae"] == ["diffusers", "AutoencoderKL"]
    autoencoder = AutoencoderKL.from_pretrained(moved, subfolder="vae")
    assert state_digest(autoencoder.state_dict()) == encoders.autoencoder.identity["sha256"]
    text_encoder = CLIPTextModel.from_pretrained(moved, subfolder="text_encoder")
    tokens = CLIPTokenizer.from_pretrained(moved, subfolder="tokenizer")(["Two cats."], return_tensors="pt")
    assert text_encoder(tokens.input_ids).last_hidden_state.shape[-1] == trained.recipe.model.text_hidden_size
    arguments = ["--prompt", "Two cats.", "--num-inference-steps", 3, "--seed", 3]
    for source, out in ((moved, "copied"), (undisturbed / "tiny", "own")):
        ifvit_main("sample", source, *arguments, "--out", tmp_path / out)
    image = "00000-two-cats.png"
    assert (tmp_path / "copied" / image).read_bytes() == (tmp_path / "own" / image).read_bytes()


def test_other_encoders_than_the_copied_ones_may_be_given(
    undisturbed: Path, tmp_path: Path, ifvit_main: Command
) -> None:
    export = tmp_path / "export"
    ifvit_main("export", undisturbed / "tiny", "--out", export, "--with-encoders")
    overrides = ["encoders.autoencoder=random-autoencoder-small"]
    encoders = load_trained_model(str(export), overrides=overrides).recipe.encoders
    assert (encoders.autoencoder, encoders.text_encoder) == ("random-autoencoder-small", str(export / "text_encoder"))


def test_fields_of_the_exported_recipe_may_change(undisturbed: Path, tmp_path: Path, ifvit_main: Command) -> None:
    export = tmp_path / "export"
    ifvit_main("export", undisturbed / "tiny", "--out", export, "--set", "sampling.solver=dpmsolver++_multistep_2")
    assert load_trained_model(str(export)).recipe.sampling.solver == "dpmsolver++_multistep_2"
    index = json.loads((export / "model_index.json").read_text())
    assert index["scheduler"] == ["diffusers", "DPMSolverMultistepScheduler"]


def test_half_precision_says_so(
    undisturbed: Path, average: dict[str, torch.Tensor], tmp_path: Path, ifvit_main: Command
) -> None:
    export = tmp_path / "export"
    done = ifvit_main("export", undisturbed / "tiny", "--out", export, "--precision", "fp16")
    description = (export / "description.txt").read_text().strip()
    refused = ifvit_main("export", export, "--out", tmp_path / "again", code=2)
    assert "is a model folder already, export takes a run" in refused.stderr
    assert description.endswith("EMA 0.9, fp16") and done.stdout == f"{export}: {description}\n"
    rounded = ifvit.load_model(export).state_dict()
    assert all(torch.equal(rounded[name], average[name].half().float()) for name in average)


def test_training_starts_from_an_export(
    undisturbed: Path, average: dict[str, torch.Tensor], train: Train, tmp_path: Path, ifvit_main: Command
) -> None:
    export = tmp_path / "export"
    ifvit_main("export", undisturbed / "tiny", "--out", export)
    assert train(1, tmp_path, f"train.init_from={export}", "train.max_steps=1") == [0]
    start = final_tensors(tmp_path)
    for name, weights in average.items():
        # The first learning rate is 0, so the first averages are of equal weights.
        assert torch.equal(start[f"weights/{name}"], weights)
        assert torch.allclose(start[f"ema-0.99/{name}"], weights, rtol=1e-6, atol=1e-9)
        # From nothing, with both betas 0.9: a tenth of the gradient, and a tenth of its square.
        exp_avg, exp_avg_sq = start[f"exp_avg/{name}"], start[f"exp_avg_sq/{name}"]
        assert torch.allclose(exp_avg_sq, 10 * exp_avg.square(), rtol=1e-4, atol=1e-20)
    checkpoint = newest_checkpoint(tmp_path / "tiny/checkpoints")
    assert checkpoint is not None
    progress = checkpoint.manifest.progress
    assert (progress.step, progress.samples_seen, progress.optimizer_steps) == (1, 8, 1)
