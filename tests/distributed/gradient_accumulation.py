"""The gradient of one step in bf16, as the optimiser sees it, for different numbers of micro-batches."""

import torch

from ifvit.config.schema import DiffusionConfig, ModelConfig, OptimizerConfig, RuntimeConfig, TrainConfig
from ifvit.data.batch import Batch
from ifvit.diffusion.objective import Objective
from ifvit.diffusion.schedule import NoiseSchedule
from ifvit.model.uvit import UViT
from ifvit.runtime.distributed import Ranks
from ifvit.training.engine import DeepSpeedEngine
from ifvit.training.gathering import gather_parameters

ROWS = 32


def first_gradient(ranks: Ranks, precision: str, micro_batch_size: int, zero_stage: int = 1) -> dict[str, torch.Tensor]:
    """The first moment after one step is (1 - beta) times the gradient: whole, by parameter name."""
    config = ModelConfig.model_validate(
        {
            "sample_size": 8,
            "hidden_size": 32,
            "num_attention_heads": 2,
            "depth": 4,
            "fusion": {"schedule": "intermediate", "num_image_blocks": 1},
            "text_hidden_size": 16,
            "num_text_tokens": 5,
        }
    )
    train = TrainConfig.model_validate(
        {"global_batch_size": ROWS, "micro_batch_size": micro_batch_size, "precision": precision}
    )
    torch.manual_seed(0)
    model = UViT(config)
    engine = DeepSpeedEngine(model, train, OptimizerConfig(), RuntimeConfig(zero_stage=zero_stage), ranks.world_size)
    generator = torch.Generator().manual_seed(1)
    batch = Batch(
        moments=torch.randn(ROWS, 8, 8, 8, generator=generator),
        prompt_embeds=torch.randn(ROWS, 5, 16, generator=generator),
        input_ids=None,
        is_dropped=torch.zeros(ROWS, dtype=torch.bool),
        sample_ids=torch.arange(ROWS),
        global_rows=torch.arange(ROWS),
    )
    rows = ROWS // ranks.world_size
    first_row = ranks.rank * rows
    mine = batch.rows(first_row, first_row + rows)
    objective = Objective(NoiseSchedule(DiffusionConfig()), 1.0, torch.zeros(5, 16), seed=0, global_batch_size=ROWS)
    draws = objective.draw(0, mine)
    for start in range(0, rows, micro_batch_size):
        part = start, start + micro_batch_size
        loss = objective.loss(engine.model, mine.rows(*part), draws.rows(*part)) / engine.num_micro_batches
        engine.backward(loss)
    engine.step(0.0)
    moments = [engine.moment(fragment, "exp_avg") for fragment in engine.fragments]
    return gather_parameters(model, engine.fragments, moments, is_sharded=True)
