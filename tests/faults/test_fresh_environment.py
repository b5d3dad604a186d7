"""An export where nothing else is: no DeepSpeed, no MLflow, nothing that could open a pickle."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from ifvit.commands.main import main
from ifvit.commands.trained_model import load_trained_model

FOLDER, IMAGE = "model", "surfer.png"  # as README.md has them
PROMPT = "A man riding a wave on a surfboard."
HERE = """
import pickle, sys
from importlib.util import find_spec

TRAINING = ("deepspeed", "mlflow", "webdataset", "submitit", "accelerate")
LIBRARIES = ("transformers", "diffusers")
for name in TRAINING + LIBRARIES:
    sys.modules[name] = None  # to every import, and to every look for it, it is not installed

def refuse(*arguments, **options):
    raise AssertionError("a pickle was opened")

class Unpickler(pickle.Unpickler):
    load = refuse

import torch
pickle.load, pickle.loads, pickle.Unpickler, torch.load = refuse, refuse, Unpickler, refuse

import ifvit
from safetensors.torch import load_file, save_file
model, inputs = ifvit.load_model(FOLDER), load_file("inputs.safetensors")
with torch.no_grad():
    save_file({"noise": model(**inputs)}, "noise.safetensors")
assert not [name for name in sys.modules if name.partition(".")[0] in LIBRARIES and sys.modules[name] is not None]
for name in LIBRARIES:
    del sys.modules[name]
README
from ifvit.commands.main import main
assert main(["sample", FOLDER, "--prompt", PROMPT, "--seed", "0", "--out", "sampled"]) == 0
assert all(sys.modules[name] is None for name in TRAINING)
for opener in (lambda: pickle.loads(pickle.dumps(1)), lambda: torch.load("noise.safetensors")):
    try:
        opener()
    except AssertionError:
        continue
    raise SystemExit("a pickle can be opened")
"""


def readme_script(repository: Path) -> str:
    """The lines of README.md that make an image from an export."""
    blocks = (repository / "README.md").read_text(encoding="utf-8").split("\n\n")
    (block,) = [block for block in blocks if "load_trained_model(" in block]
    lines = block.splitlines()
    assert all(line.startswith("    ") for line in lines)
    return "\n".join(line.removeprefix("    ") for line in lines)


def only_sample(folder: Path) -> np.ndarray:
    """The pixels of the one image that `ifvit sample` wrote there."""
    (entry,) = json.loads((folder / "samples.json").read_text())["images"]
    return np.asarray(Image.open(folder / entry["file"]))


@pytest.mark.fault(
    "F28",
    injected="an export loaded in a fresh process without DeepSpeed, MLflow and webdataset, and without transformers "
    "and diffusers as far as the backbone goes",
    detected="any pickle that is opened is an error; none is",
    recovered="the backbone's output and the samples equal the run's bit for bit",
    lost="nothing",
)
def test_an_export_gives_the_run_s_samples(undisturbed: Path, repository: Path, tmp_path: Path) -> None:
    run = undisturbed / "tiny"
    assert main(["export", str(run), "--out", str(tmp_path / FOLDER)]) == 0
    trained = load_trained_model(str(run))
    shape, generator = trained.recipe.model, torch.Generator().manual_seed(0)
    inputs = {
        "latents": torch.randn(2, shape.in_channels, shape.sample_size, shape.sample_size, generator=generator),
        "timesteps": torch.tensor([1, 1000]),
        "encoder_hidden_states": torch.randn(2, shape.num_text_tokens, shape.text_hidden_size, generator=generator),
    }
    save_file(inputs, tmp_path / "inputs.safetensors")
    script = HERE.replace("FOLDER", repr(FOLDER)).replace("PROMPT", repr(PROMPT))
    script = script.replace("README", readme_script(repository))
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(repository)},
        text=True,
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        expected = trained.model(**inputs)
    assert torch.equal(load_file(tmp_path / "noise.safetensors")["noise"], expected)
    assert main(["sample", str(run), "--prompt", PROMPT, "--seed", "0", "--out", str(tmp_path / "samples")]) == 0
    expected_image = only_sample(tmp_path / "samples")
    assert np.array_equal(np.asarray(Image.open(tmp_path / IMAGE)), expected_image)
    assert np.array_equal(only_sample(tmp_path / "sampled"), expected_image)
