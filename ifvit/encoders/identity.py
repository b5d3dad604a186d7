"""Digests that tell encoders apart by their weights, wherever they lie."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def state_digest(state: Mapping[str, Tensor], ignored_prefix: str = "") -> str:
    """sha256 over names (less `ignored_prefix`), shapes and float32 values, in the order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted((name.removeprefix(ignored_prefix), tensor) for name, tensor in state.items()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy().data)
    return digest.hexdigest()
