"""The recipe: every field of a training run, its type, range, default and meaning. No torch here.

Defaults are the paper's values (arXiv 2403.16530, Table 3) wherever the paper has one. A field without a default must
stand in the recipe; a recipe may leave one to the command line by writing `???`. Section `data`: data_section.py.
"""

from typing import Annotated, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)
from pydantic_core import PydanticCustomError

from ifvit.config.data_section import DataConfig
from ifvit.config.errors import field_error
from ifvit.config.field_types import Decay, Folder, Name, Probability, Text
from ifvit.config.fusion import FusionPlan, FusionSchedule, IntermediateFusion, Section


class EncodersConfig(Section):
    """The frozen encoders: each a local folder, a hub name (owner/name[/subfolder]), scenes-... or random-...-small."""

    autoencoder: Text
    text_encoder: Text
    tokenizer: Text | None = None  # default: the text encoder's own
    scaling_factor: PositiveFloat | None = None  # of the latents; default: measured when the shards are made


class ModelConfig(Section):
    """The backbone: shape, conditioning and fusion."""

    sample_size: PositiveInt = 32  # latent rows = columns
    in_channels: PositiveInt = 4  # latent channels
    patch_size: PositiveInt = 2
    hidden_size: PositiveInt = 512
    num_attention_heads: PositiveInt = 8
    depth: PositiveInt = 12  # in-blocks + out-blocks; the mid block and the text blocks come on top
    mlp_ratio: PositiveFloat = 4.0
    qkv_bias: bool = False
    time_embedding_mlp: bool = False  # pass the sinusoidal time embedding through an MLP
    conditioning: Literal["concat", "cross_attention"] = "cross_attention"
    fusion: FusionSchedule = IntermediateFusion()
    text_hidden_size: PositiveInt = 768
    num_text_tokens: PositiveInt = 77

    @model_validator(mode="after")
    def check_shape(self) -> "ModelConfig":
        if self.hidden_size % self.num_attention_heads:
            raise field_error(
                "num_attention_heads", f"is {self.num_attention_heads}, must divide hidden_size = {self.hidden_size}"
            )
        if self.hidden_size % 2:
            raise field_error("hidden_size", f"is {self.hidden_size}, must be even: half sine, half cosine of the time")
        if self.depth % 2:
            raise field_error("depth", f"is {self.depth}, must be even: out-blocks mirror in-blocks")
        if self.sample_size % self.patch_size:
            raise field_error("patch_size", f"is {self.patch_size}, must divide sample_size = {self.sample_size}")
        try:
            self.fusion.plan(self.depth)
        except PydanticCustomError as error:
            context = error.context or {}
            raise field_error(f"fusion.{context['field']}", context["problem"]) from error
        return self

    @property
    def plan(self) -> FusionPlan:
        return self.fusion.plan(self.depth)

    @property
    def attention_head_dim(self) -> int:
        """K: width per head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def num_image_tokens(self) -> int:
        """I: one time token and the latent patches."""
        return 1 + (self.sample_size // self.patch_size) ** 2


class DiffusionConfig(Section):
    """The discrete noise schedule: betas = linspace(sqrt(start), sqrt(end), steps)^2 ("scaled_linear")."""

    num_train_timesteps: PositiveInt = 1000
    beta_start: Annotated[float, Field(gt=0, lt=1)] = 0.00085
    beta_end: Annotated[float, Field(gt=0, lt=1)] = 0.0120

    @model_validator(mode="after")
    def check_betas(self) -> "DiffusionConfig":
        if self.beta_end < self.beta_start:
            raise field_error("beta_end", f"is {self.beta_end}, must be at least beta_start = {self.beta_start}")
        return self


class BadStepsConfig(Section):
    """What is done about steps whose numbers went bad. One with a loss or gradient that is not finite is skipped."""

    # Skip also a step whose loss lies so many robust standard deviations (1.4826 MAD) above the median of the last good
    # losses; costs a reduction of the loss per step.
    spike_threshold: PositiveFloat | None = None
    spike_window: Annotated[int, Field(ge=5)] = 200  # how many of the last good losses
    max_in_a_row: PositiveInt = 3  # so many skipped steps in a row lead to a rollback, or to the end
    # How often a run goes back to its newest checkpoint and leaves out the batches up to the last bad one.
    max_rollbacks: NonNegativeInt = 0

    @model_validator(mode="after")
    def check_spikes(self) -> "BadStepsConfig":
        if self.spike_threshold is None:
            self.refuse_unread("spike_window", "without spike_threshold")
        return self


class TrainConfig(Section):
    """How long, how large a batch, in which precision."""

    max_steps: PositiveInt = 1_000_000  # optimiser steps
    global_batch_size: PositiveInt = 256  # samples per optimiser step, over all ranks
    micro_batch_size: PositiveInt = 256  # samples per forward pass of one rank
    precision: Literal["fp32", "bf16"] = "bf16"
    caption_dropout_prob: Probability = 0.1
    max_grad_norm: PositiveFloat | None = None  # longer gradients, over all parameters, are scaled to it; None: never
    activation_checkpointing: Probability = 0.0  # share of the blocks that backward computes again: memory for time
    init_from: Folder | None = None  # folder with model weights (import-weights, export) to start from
    bad_steps: BadStepsConfig = BadStepsConfig()

    @model_validator(mode="after")
    def check_batch(self) -> "TrainConfig":
        if self.global_batch_size % self.micro_batch_size:
            raise field_error(
                "micro_batch_size",
                f"is {self.micro_batch_size}, must divide global_batch_size = {self.global_batch_size}",
            )
        return self


class OptimizerConfig(Section):
    """AdamW on all parameters; linear warm-up, then constant."""

    learning_rate: PositiveFloat = 2.0e-4
    weight_decay: NonNegativeFloat = 0.03
    adam_betas: tuple[Decay, Decay] = (0.9, 0.9)  # the paper's; not the noise schedule
    adam_epsilon: PositiveFloat = 1.0e-8
    warmup_steps: NonNegativeInt = 5000


class EmaConfig(Section):
    """Averaged weights: one copy per decay, updated each step from the start."""

    decays: Annotated[tuple[Decay, ...], Field(min_length=1)] = (0.9999,)  # the first one is sampled from

    @model_validator(mode="after")
    def check_distinct(self) -> "EmaConfig":
        if len(set(self.decays)) != len(self.decays):
            raise field_error("decays", f"is {list(self.decays)}, must not name a decay twice")
        return self


class CheckpointConfig(Section):
    """When the training state is saved, and how many of the saved states are kept."""

    every_steps: PositiveInt = 10_000
    keep_last: PositiveInt = 3  # newest intact ones
    milestone_every_steps: PositiveInt | None = None  # those of steps that this divides are kept for ever
    asynchronous: bool = True  # training goes on while files are written; either way memory holds a copy of them
    max_failed_saves: PositiveInt = 3  # in a row; then the run ends with an error

    @model_validator(mode="after")
    def check_milestones(self) -> "CheckpointConfig":
        if self.milestone_every_steps is not None and self.milestone_every_steps % self.every_steps:
            raise field_error(
                "milestone_every_steps",
                f"is {self.milestone_every_steps}, must be a multiple of every_steps = {self.every_steps}",
            )
        return self


class SamplingConfig(Section):
    """How images are made, during training (`prompts`, `every_steps`) and by `ifvit sample`."""

    prompts: tuple[Text, ...] = ()  # sample grids during training; none: no grids
    every_steps: PositiveInt = 10_000
    guidance_scale: NonNegativeFloat = 4.0  # 1.0 = off; the paper's omega = guidance_scale - 1
    num_inference_steps: PositiveInt = 50
    solver: Literal["dpmsolver++_singlestep_3", "dpmsolver++_multistep_2"] = "dpmsolver++_singlestep_3"
    batch_size: PositiveInt = 16  # prompts per call of the model

    @model_validator(mode="after")
    def check_steps(self) -> "SamplingConfig":
        order = int(self.solver[-1])
        if self.num_inference_steps < order:
            raise field_error(
                "num_inference_steps", f"is {self.num_inference_steps}, must be at least {order} for {self.solver}"
            )
        return self


class TrackingConfig(Section):
    """JSONL is always written; MLflow on top of it."""

    mlflow: bool = True
    mlflow_tracking_uri: Text | None = None  # default: sqlite:///{runtime.runs_root}/mlflow.db
    experiment: Name = "ifvit"
    log_every_steps: PositiveInt = 50
    validation_every_steps: PositiveInt = 5000  # and at the end, where data.validation_split is given
    validation_num_samples: PositiveInt = 1024  # of the split, spread evenly over it; at most all
    step_times_every_steps: NonNegativeInt = 100  # one step in so many is measured in its parts; 0: none
    # Dense peak of one device in the recipe's precision, TFLOP/s: mfu is relative to it. Default: the data sheet's, of
    # a GPU that ifvit knows.
    device_peak_tflops: PositiveFloat | None = None
    # A rank whose own part of a measured step takes more than so many times the median is named on stderr.
    straggler_ratio: Annotated[float, Field(gt=1)] = 1.5

    @model_validator(mode="after")
    def check_stragglers(self) -> "TrackingConfig":
        if self.step_times_every_steps == 0:
            self.refuse_unread("straggler_ratio", "without step_times_every_steps above 0")
        return self


class RuntimeConfig(Section):
    """What may change between two starts of the same run."""

    runs_root: Folder = "runs"  # the run lives in {runs_root}/{name}
    # Sharded over the ranks: at 1 moments, at 2 gradients too, at 3 weights too. Literal would take true and 1.0 for 1.
    zero_stage: Annotated[int, Field(ge=0, le=3)] = 1
    offload_optimizer: bool = False  # moments, float32 weights and update on the CPU; zero_stage 2 or 3
    compile: bool = False  # torch.compile for each block
    # A rank that does not get on for so long, or for ten median steps, is named, and the job ends with exit code 3;
    # ten times as long to start, log, save and sample.
    watchdog_seconds: Annotated[int, Field(ge=4)] = 120
    # Wall clock of one start, from the process's start. It saves and ends with exit code 75 early enough for the save,
    # but not before one step is made.
    max_hours: PositiveFloat | None = None
    # Every so many steps the ranks compare what all of them should hold alike; the first difference ends the run.
    replica_check_every_steps: NonNegativeInt = 0  # 0: never
    # auto: on a GPU the fastest whose output and gradients are right, timed once (kept in XDG_CACHE_HOME/ifvit).
    # flash, cudnn, efficient: torch's kernel of that name; sdpa: torch's own choice among them; math: written out.
    attention_backend: Literal["auto", "xformers", "flash", "cudnn", "efficient", "sdpa", "math"] = "auto"


class Recipe(Section):
    """A whole training run."""

    name: Name
    seed: NonNegativeInt = 1234
    data: DataConfig
    encoders: EncodersConfig
    model: ModelConfig = ModelConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    train: TrainConfig = TrainConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    ema: EmaConfig = EmaConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    sampling: SamplingConfig = SamplingConfig()
    tracking: TrackingConfig = TrackingConfig()
    runtime: RuntimeConfig = RuntimeConfig()

    @model_validator(mode="after")
    def check_inference_steps(self) -> "Recipe":
        if self.sampling.num_inference_steps > self.diffusion.num_train_timesteps:
            raise field_error(
                "sampling.num_inference_steps",
                f"is {self.sampling.num_inference_steps}, must be at most diffusion.num_train_timesteps = "
                f"{self.diffusion.num_train_timesteps}",
            )
        return self

    @model_validator(mode="after")
    def check_validation(self) -> "Recipe":
        if self.data.validation_split is None:
            for field in ("validation_every_steps", "validation_num_samples"):
                self.tracking.refuse_unread(field, "without data.validation_split", "tracking.")
        return self

    @model_validator(mode="after")
    def check_zero_stage(self) -> "Recipe":
        if self.runtime.zero_stage == 0 and self.train.precision == "bf16":
            raise field_error(
                "runtime.zero_stage",
                "is 0 with train.precision bf16, which is another optimiser in DeepSpeed: use zero_stage 1, "
                "also on one GPU, or precision fp32",
            )
        if self.runtime.offload_optimizer and self.runtime.zero_stage < 2:
            raise field_error(
                "runtime.offload_optimizer",
                f"is true with runtime.zero_stage {self.runtime.zero_stage}, must be false there; use 2 or 3",
            )
        return self
