"""ifvit/encoders/text_encoder.py"""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel, CLIPTextModel, CLIPVisionConfig

from ifvit.config.errors import UserError
from ifvit.encoders.random_weights import byte_tokenizer_folder, random_text_encoder_folder
from ifvit.encoders.text_encoder import TextEncoder

START, END = 512, 513  # of the byte tokenizer


@pytest.fixture(scope="module")
def text_encoder() -> TextEncoder:
    return TextEncoder.load("random-clip-small", None, 16)


def weights_folder() -> Path:
    return random_text_encoder_folder(514, START, END)


def test_ids_are_padded_truncated_and_framed(text_encoder: TextEncoder) -> None:
    ids = text_encoder.tokenize(["a cat", "", "z" * 100])
    assert ids.dtype == torch.int64
    assert ids.shape == (3, 16)
    assert ids[0, 0] == START
    assert ids[0, 5:].tolist() == [END] * 11  # a</w>, c, a, t</w>
    assert ids[1].tolist() == [START] + [END] * 15
    assert (ids[2] == END).nonzero().tolist() == [[15]]


def test_special_tokens_in_a_prompt_are_text(text_encoder: TextEncoder) -> None:
    ids = text_encoder.tokenize(["a <|endoftext|> b <|startoftext|>"])[0].tolist()
    assert ids.count(START) == 1
    assert END not in ids[:15]


@pytest.mark.parametrize("prompt", ["\0\x1b[31m", "é 😀 中", "\u202eabc\u202c", "x" * 100_000, " \n\t "])
def test_any_text_gives_the_right_number_of_known_ids(text_encoder: TextEncoder, prompt: str) -> None:
    ids = text_encoder.tokenize([prompt])[0]
    assert ids.shape == (16,)
    assert ids[0] == START
    assert ids[-1] == END


def test_it_says_what_of_a_prompt_it_does_not_read(text_encoder: TextEncoder) -> None:
    assert text_encoder.unread(["a cat", ""]) == []
    assert text_encoder.unread(["a cat", "z" * 14, "z" * 15]) == ["1 of 3 prompts are cut: the model reads 16 tokens"]
    of_scenes = TextEncoder.load("scenes-clip", None, 24)
    known = ["Three red circles, to the left of a star.", "a photo of a small blue triangle"]
    assert of_scenes.unread(known[:1]) == []
    assert of_scenes.unread(["A dog by two red circles", "a dog, three hexagons"]) == [
        "scenes-clip has read captions of scenes only and does not know: dog, by, hexagons"
    ]


def test_embeddings_are_the_library_s_last_hidden_state_without_a_mask(text_encoder: TextEncoder) -> None:
    model = CLIPTextModel.from_pretrained(weights_folder()).eval()
    ids = text_encoder.tokenize(["a cat", "two dogs"])
    with torch.no_grad():
        expected = model(input_ids=ids).last_hidden_state
    embeds = text_encoder.encode_prompts(["a cat", "two dogs"])
    assert embeds.shape == (2, 16, text_encoder.hidden_size)
    torch.testing.assert_close(embeds, expected, rtol=0, atol=0)


def test_padded_positions_are_not_zeros_and_depend_on_the_caption(text_encoder: TextEncoder) -> None:
    last = text_encoder.encode_prompts(["a cat", "a dog"])[:, -1]  # both end long before
    assert last.abs().mean() > 0.1
    assert (last[0] - last[1]).abs().mean() > 1e-3


def test_the_null_condition_is_not_zeros(text_encoder: TextEncoder) -> None:
    assert text_encoder.encode_prompts([""]).abs().mean() > 0.1


def test_identity_is_independent_of_place_and_of_what_was_encoded(text_encoder: TextEncoder, tmp_path: Path) -> None:
    text_encoder.tokenize(["padding and truncation change the tokenizer's state"])
    encoder = shutil.copytree(weights_folder(), tmp_path / "encoder")
    tokenizer = shutil.copytree(byte_tokenizer_folder(), tmp_path / "tokenizer")
    moved = TextEncoder.load(str(encoder), str(tokenizer), 16).identity
    assert moved["sha256"] == text_encoder.identity["sha256"]
    assert moved["tokenizer_sha256"] == text_encoder.identity["tokenizer_sha256"]
    assert moved["random"] is text_encoder.identity["random"] is True
    assert text_encoder.identity["tokenizer"] == "random-clip-small"


def test_a_full_clip_model_gives_its_text_half(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = CLIPTextModel.from_pretrained(weights_folder())
    vision = CLIPVisionConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=16, intermediate_size=16
    )
    torch.manual_seed(0)
    full = CLIPModel(CLIPConfig(text_config=text.config.to_dict(), vision_config=vision.to_dict(), projection_dim=16))
    full.save_pretrained(tmp_path)
    capfd.readouterr()
    encoder = TextEncoder.load(str(tmp_path), str(byte_tokenizer_folder()), 16)
    assert encoder.identity["random"] is False
    assert "UNEXPECTED" not in "".join(capfd.readouterr())
    ids = encoder.tokenize(["a cat"])
    with torch.no_grad():
        expected = full.eval().text_model(input_ids=ids).last_hidden_state
    torch.testing.assert_close(encoder.encode(ids), expected)


def test_missing_weights_are_refused_not_invented(tmp_path: Path) -> None:
    folder = shutil.copytree(weights_folder(), tmp_path / "partial")
    weights = load_file(folder / "model.safetensors")
    weights.pop(next(name for name in weights if "position_embedding" in name))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"encoders\.text_encoder.*position_embedding"):
        TextEncoder.load(str(folder), str(byte_tokenizer_folder()), 16)


def test_a_folder_with_weights_but_no_tokenizer_is_refused(tmp_path: Path) -> None:
    # transformers 5 gives an empty vocabulary here, without an error
    folder = shutil.copytree(weights_folder(), tmp_path / "encoder")
    with pytest.raises(UserError, match=r"^encoders\.tokenizer: .* has no CLIP tokenizer"):
        TextEncoder.load(str(folder), None, 16)


def test_a_hub_name_without_a_network_names_the_field_and_the_fix() -> None:
    with pytest.raises(UserError, match=r"^encoders\.text_encoder: 'openai/.*--set encoders\.text_encoder=DIR"):
        TextEncoder.load("openai/clip-vit-large-patch14", None, 77)
    with pytest.raises(UserError, match=r"^encoders\.tokenizer: 'openai/.*--set encoders\.tokenizer=DIR"):
        TextEncoder.load("random-clip-small", "openai/clip-vit-large-patch14", 77)


def test_more_text_tokens_than_positions_are_refused() -> None:
    with pytest.raises(UserError, match=r"^model\.num_text_tokens: is 78, the text encoder has 77 positions"):
        TextEncoder.load("random-clip-small", None, 78)


@pytest.mark.coco
def test_the_real_tokenizer(test_data: Path) -> None:
    encoder = TextEncoder.load("random-clip-small", str(test_data / "clip_tokenizer"), 77)
    assert encoder.tokenize(["a photo of a cat"])[0, :8].tolist() == [49406, 320, 1125, 539, 320, 2368, 49407, 49407]
    assert encoder.encode_prompts(["a photo of a cat"]).shape == (1, 77, 64)


@pytest.mark.coco
def test_a_tokenizer_that_is_larger_than_the_encoder_is_refused(test_data: Path) -> None:
    with pytest.raises(UserError, match=r"^encoders\.tokenizer: has 49408 tokens, the text encoder knows 514"):
        TextEncoder.load(str(weights_folder()), str(test_data / "clip_tokenizer"), 16)
