"""IF-U-ViT: text-to-image diffusion transformers with intermediate fusion (arXiv 2403.16530)."""

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Lazy: `import ifvit` and `ifvit validate` must not wait for torch.
    if name == "load_model":
        from ifvit.model.weights import load_model

        return load_model
    raise AttributeError(f"module 'ifvit' has no attribute '{name}'")
