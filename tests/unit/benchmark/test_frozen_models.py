"""Bytes of encoders that lie in a folder, from their files' heads."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from ifvit.benchmark.frozen_models import stored_bytes


def test_a_clips_image_half_and_other_variants_are_not_loaded(tmp_path: Path) -> None:
    text, image = torch.zeros(3, 5, dtype=torch.float16), torch.zeros(70)
    save_file({"text_model.a": text, "vision_model.a": image}, tmp_path / "model.safetensors", {"format": "pt"})
    save_file({"text_model.a": text}, tmp_path / "model.fp16.safetensors")
    assert stored_bytes("encoders.text_encoder", str(tmp_path), 7) == 4 * 15


def test_what_is_not_here_counts_as_the_papers() -> None:
    assert stored_bytes("encoders.text_encoder", "owner/name", 7) == 7
