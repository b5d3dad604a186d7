"""ifvit/encoders/clip.py"""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from ifvit.config.errors import UserError
from ifvit.encoders.clip import Clip
from ifvit.encoders.locate import RANDOM_MARK
from ifvit.encoders.random_weights import byte_tokenizer_folder, random_text_encoder_folder
from tests.tiny_clip import WIDTH, save_tiny_clip

PROMPTS = ["two red stars", "", "z" * 100]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def clip(folder: Path) -> Clip:
    return Clip.load(str(folder))


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)


def test_features_are_the_library_s(folder: Path, clip: Clip, images: np.ndarray) -> None:
    model = CLIPModel.from_pretrained(folder).eval()
    processor, tokenizer = CLIPImageProcessorPil.from_pretrained(folder), CLIPTokenizer.from_pretrained(folder)
    text = tokenizer(PROMPTS, padding="max_length", truncation=True, max_length=24, return_tensors="pt")
    with torch.no_grad():
        output = model(input_ids=text.input_ids, pixel_values=processor(list(images), return_tensors="pt").pixel_values)
    torch.testing.assert_close(clip.image_features(images), output.image_embeds)  # the library's are normalised
    torch.testing.assert_close(clip.text_features(PROMPTS), output.text_embeds)
    assert clip.image_features(images).shape == (5, WIDTH)


def test_embeds_are_features_of_any_length(clip: Clip, images: np.ndarray) -> None:
    embeds = clip.image_embeds(images)
    lengths = embeds.norm(dim=1, keepdim=True)
    assert (lengths - 1).abs().min() > 0.01
    torch.testing.assert_close(embeds / lengths, clip.image_features(images))


def test_batches_do_not_matter(clip: Clip, images: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    together, text = clip.image_embeds(images), clip.text_features(PROMPTS)
    monkeypatch.setattr("ifvit.encoders.clip.BATCH_SIZE", 2)
    torch.testing.assert_close(clip.image_embeds(images), together)
    torch.testing.assert_close(clip.text_features(PROMPTS), text)


def test_what_is_cut_off_is_counted(clip: Clip) -> None:
    """A prompt of 22 letters fits between start and end."""
    assert clip.num_text_tokens == 24
    assert clip.num_truncated(["z" * 22, "z" * 23, "", "z" * 100, "<|endoftext|>" * 2]) == 3
    torch.testing.assert_close(clip.text_features(["z" * 23]), clip.text_features(["z" * 100]))
    assert clip.num_truncated(PROMPTS) == 1  # also after a call that truncates


def test_words_of_one_token_are_known(clip: Clip) -> None:
    assert clip.knows_words("z") and clip.knows_words("a z")
    assert not clip.knows_words("a zz")


def test_identity_is_independent_of_place_and_of_what_was_encoded(clip: Clip, folder: Path, tmp_path: Path) -> None:
    clip.text_features(PROMPTS)
    moved = Clip.load(str(shutil.copytree(folder, tmp_path / "moved"))).identity
    assert {**moved, "name": ""} == {**clip.identity, "name": ""}
    assert clip.identity["random"] is False and clip.notice == ""


def test_random_weights_are_noticed(folder: Path, tmp_path: Path) -> None:
    marked = shutil.copytree(folder, tmp_path / "random")
    (marked / RANDOM_MARK).touch()
    assert "Random weights in the CLIP" in Clip.load(str(marked)).notice


@pytest.mark.parametrize("is_folder", [True, False])
def test_a_text_encoder_alone_is_refused(is_folder: bool) -> None:
    name = str(random_text_encoder_folder(514, 512, 513)) if is_folder else "random-clip-small"
    with pytest.raises(UserError, match=r"^encoders\.text_encoder: '.*' is a text encoder alone.*--clip DIR"):
        Clip.load(name, field="encoders.text_encoder", tokenizer_name=str(byte_tokenizer_folder()))


def test_missing_weights_are_refused_not_invented(folder: Path, tmp_path: Path) -> None:
    partial = shutil.copytree(folder, tmp_path / "partial")
    weights = load_file(partial / "model.safetensors")
    weights.pop("visual_projection.weight")
    save_file(weights, partial / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"^--clip: .* are no CLIPModel's: 1 tensors.*visual_projection"):
        Clip.load(str(partial))


def test_a_folder_without_an_image_processor_is_refused(folder: Path, tmp_path: Path) -> None:
    partial = shutil.copytree(folder, tmp_path / "partial")
    (partial / "preprocessor_config.json").unlink()
    with pytest.raises(UserError, match=r"^--clip: a CLIP image processor cannot be loaded from the folder"):
        Clip.load(str(partial))


def test_no_folder_names_the_option_and_the_fix() -> None:
    with pytest.raises(UserError, match=r"^--clip: '/nowhere' is no local folder.*give one: --clip DIR$"):
        Clip.load("/nowhere")
