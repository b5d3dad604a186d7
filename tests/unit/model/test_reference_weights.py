"""Public weights, through files under the reference's names: the same outputs from our model."""

import json
import pickle
import tempfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import ifvit
from ifvit.commands.main import main
from ifvit.config.errors import UserError
from ifvit.model.reference_weights import import_reference_weights, import_state_dict, read_reference_weights
from ifvit.model.uvit import UViT
from ifvit.model.weights import load_weights

CELLS = ["concat_early", "concat_intermediate", "cross_early", "cross_intermediate"]


def relative_error(output: torch.Tensor, expected: torch.Tensor) -> float:
    return ((output - expected).norm() / expected.norm()).item()


@pytest.mark.coco
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("cell", CELLS)
def test_imported_weights_give_the_references_output(cell: str, suffix: str, fixtures: Path, tmp_path: Path) -> None:
    weights = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(load_file(fixtures / cell / "nnet.safetensors"), weights)
    else:
        weights.symlink_to(fixtures / cell / "nnet.safetensors")
    out = tmp_path / "model"
    command = ["import-weights", str(weights), "--reference-config", str(fixtures / cell / "config.json")]
    assert main([*command, "--out", str(out)]) == 0
    model = ifvit.load_model(out)
    tensors = load_file(fixtures / cell / "io.safetensors")
    with torch.no_grad():
        output = model(tensors["latents"], tensors["timesteps"], tensors["text_embeds"])
        assert relative_error(output, tensors["output"]) < 1e-5
        double = model.double()(tensors["latents"].double(), tensors["timesteps"], tensors["text_embeds"].double())
        assert relative_error(double, tensors["output"].double()) < 1e-7


@pytest.fixture
def reference(tmp_path: Path) -> tuple[Path, Path]:
    """A tiny file of U-ViT's own names with biases in qkv and an MLP on time, and its constructor arguments."""
    arguments = {"img_size": 4, "patch_size": 2, "in_chans": 4, "embed_dim": 8, "depth": 2, "num_heads": 2,
                 "mlp_ratio": 2, "qkv_bias": True, "mlp_time_embed": True, "clip_dim": 6, "num_clip_token": 3,
                 "use_checkpoint": False, "name": "uvit_t2i"}  # fmt: skip
    shapes = {"pos_embed": (1, 8, 8), "context_embed.weight": (8, 6), "context_embed.bias": (8,),
              "patch_embed.proj.weight": (8, 4, 2, 2), "patch_embed.proj.bias": (8,),
              "time_embed.0.weight": (32, 8), "time_embed.0.bias": (32,),
              "time_embed.2.weight": (8, 32), "time_embed.2.bias": (8,),
              "norm.weight": (8,), "norm.bias": (8,), "decoder_pred.weight": (16, 8), "decoder_pred.bias": (16,),
              "final_layer.weight": (4, 4, 3, 3), "final_layer.bias": (4,)}  # fmt: skip
    for block in ("in_blocks.0", "mid_block", "out_blocks.0"):
        shapes |= {f"{block}.{name}": shape for name, shape in {
            "norm1.weight": (8,), "norm1.bias": (8,), "norm2.weight": (8,), "norm2.bias": (8,),
            "attn.qkv.weight": (24, 8), "attn.qkv.bias": (24,), "attn.proj.weight": (8, 8), "attn.proj.bias": (8,),
            "mlp.fc1.weight": (16, 8), "mlp.fc1.bias": (16,), "mlp.fc2.weight": (8, 16), "mlp.fc2.bias": (8,),
        }.items()}  # fmt: skip
    shapes |= {"out_blocks.0.skip_linear.weight": (8, 16), "out_blocks.0.skip_linear.bias": (8,)}
    generator = torch.Generator().manual_seed(0)
    weights = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    save_file(weights, tmp_path / "nnet.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(arguments))
    return tmp_path / "nnet.safetensors", tmp_path / "config.json"


def test_all_constructor_arguments_are_read(reference: tuple[Path, Path]) -> None:
    config, weights = import_reference_weights(*reference)
    assert (config.mlp_ratio, config.qkv_bias, config.time_embedding_mlp) == (2.0, True, True)
    assert (config.num_text_tokens, config.text_hidden_size) == (3, 6)
    load_weights(UViT(config), weights, "reference")  # every name and shape fits


def test_own_files_keep_positions_as_time_text_image(reference: tuple[Path, Path]) -> None:
    table = load_file(reference[0])["pos_embed"]
    _, weights = import_reference_weights(*reference)
    torch.testing.assert_close(weights["image_position"], torch.cat((table[:, :1], table[:, 4:]), dim=1))
    torch.testing.assert_close(weights["text_position"], table[:, 1:4])


def test_the_forks_files_without_joint_blocks_are_still_the_forks() -> None:
    """v = depth / 2 leaves image-only blocks and the mid block: positions are [image, time, text] all the same."""
    table = torch.arange(8.0).view(1, 8, 1).expand(1, 8, 8).contiguous()
    weights = {"pos_embed": table, "image_blocks.0.norm1.weight": torch.ones(8)}
    arguments = {"img_size": 4, "embed_dim": 8, "depth": 2, "num_heads": 2, "v": 1, "clip_dim": 6, "num_clip_token": 3}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(arguments))
        _, imported = import_state_dict(weights, Path(folder) / "config.json", "x")
    assert imported["image_position"][0, :, 0].tolist() == [4, 0, 1, 2, 3]
    assert imported["text_position"][0, :, 0].tolist() == [5, 6, 7]


def test_a_query_without_its_keys_is_named(reference: tuple[Path, Path]) -> None:
    weights = {"pos_embed": torch.zeros(1, 8, 8), "joint_blocks.0.attn.q.weight": torch.zeros(8, 8)}
    with pytest.raises(
        UserError, match=r"has joint_blocks\.0\.attn\.q\.weight and no joint_blocks\.0\.attn\.kv\.weight"
    ):
        import_state_dict(weights, reference[1], "x")


@pytest.mark.parametrize(
    "arguments, message",
    [({"embed_dim": 16}, "weights of another model"), ({"num_clip_token": 5}, "pos_embed has 8 positions"),
     ({"depth": 3}, "depth: is 3, must be even"), ({"num_classes": 10}, "num_classes = 10 is not supported"),
     ({"conv": False}, "conv = False is not supported")],
)  # fmt: skip
def test_arguments_that_do_not_fit_are_named(
    reference: tuple[Path, Path], tmp_path: Path, arguments: dict, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file, config = reference
    config.write_text(json.dumps(json.loads(config.read_text()) | arguments))
    command = ["import-weights", str(file), "--reference-config", str(config), "--out", str(tmp_path / "out")]
    assert main(command) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "executed",))

    file = tmp_path / "evil.pth"
    file.write_bytes(pickle.dumps({"pos_embed": Evil()}, protocol=2))
    with pytest.raises(UserError, match=r"evil\.pth: not a file of plain weights"):
        read_reference_weights(file)
    torch.save({"pos_embed": Evil()}, file)
    with pytest.raises(UserError, match=r"evil\.pth: not a file of plain weights"):
        read_reference_weights(file)
    assert not (tmp_path / "executed").exists()
