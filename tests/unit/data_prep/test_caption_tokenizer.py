"""data_prep/caption_tokenizer.py"""

from pathlib import Path

import pytest

from data_prep.caption_tokenizer import save_caption_tokenizer
from ifvit.encoders.clip_files import load_tokenizer
from ifvit.encoders.locate import EncoderSource

CAPTIONS = ["two red squares", "a red star above two stars", "a red square"]


@pytest.fixture
def tokenizer_folder(tmp_path: Path) -> Path:
    save_caption_tokenizer(CAPTIONS, tmp_path, num_text_tokens=8)
    return tmp_path


def test_a_word_of_the_captions_is_one_token(tokenizer_folder: Path) -> None:
    tokenizer = load_tokenizer(EncoderSource("field", str(tokenizer_folder)))
    assert tokenizer.model_max_length == 8
    for caption in CAPTIONS:
        assert tokenizer.tokenize(caption) == [f"{word}</w>" for word in caption.split()]


@pytest.mark.parametrize("text", ["Zebras, 3 of them!", "東京 é", "reds"])
def test_any_text_is_spelled_out_and_comes_back(tokenizer_folder: Path, text: str) -> None:
    tokenizer = load_tokenizer(EncoderSource("field", str(tokenizer_folder)))
    input_ids = tokenizer(text).input_ids
    assert tokenizer.unk_token_id not in input_ids[1:-1]
    decoded = tokenizer.decode(input_ids, skip_special_tokens=True)
    assert decoded.replace(" ", "") == text.lower().replace(" ", "")


def test_the_same_captions_give_the_same_bytes(
    tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    again = tmp_path_factory.mktemp("again")
    save_caption_tokenizer(CAPTIONS, again, num_text_tokens=8)
    assert (again / "tokenizer.json").read_bytes() == (tokenizer_folder / "tokenizer.json").read_bytes()
