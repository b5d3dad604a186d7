"""The one place where a time index becomes the network's input."""

from torch import Tensor


def network_timesteps(timesteps: Tensor) -> Tensor:
    """Indices 0..999, as schedulers and our schedule count, to the network input 1..1000 of `UViT.forward`."""
    return timesteps + 1
