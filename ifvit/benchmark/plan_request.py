"""What a plan is asked for: a recipe on so many GPUs of one kind, and assumptions that no recipe settles."""

from dataclasses import dataclass

from ifvit.benchmark.planned_device import PlannedDevice
from ifvit.config.errors import UserError
from ifvit.config.schema import Recipe
from ifvit.training.engine import num_micro_batches

HOURS_BETWEEN_FAILURES = 50_677.0  # of one GPU: the rate published for training Llama 3 on 16,384 of them
SAMPLES_PER_SECOND = {"embeddings": 19_680.0, "token_ids": 44_869.0}  # of one reading process: README, two Xeon cores
COCO_IMAGES, COCO_CAPTIONS = 82_783, 5


@dataclass(frozen=True)
class Assumptions:
    """What a plan cannot know. Rates are in GB (10^9 bytes) per second.

    Attributes:
        mfu: model FLOPs per second of the training step's forward and backward, as a share of the device's peak.
        node_link: of one GPU's share of its node's ports to the other nodes, each way.
        host_link: of one GPU to its host's memory.
        host_bandwidth: of the host's memory, for one GPU's share of an offloaded optimiser.
        disk: what all ranks write together.
        context_gb: what CUDA, NCCL and the libraries take of the device beside tensors.
        launch_microseconds: from the start of one kernel to that of the next, at the least.
        samples_per_second: that one rank's loader delivers; None: measured on two Xeon cores, by text_storage.
    """

    mfu: float = 0.40
    node_link: float = 50.0
    host_link: float = 25.0
    host_bandwidth: float = 50.0
    disk: float = 1.0
    context_gb: float = 1.5
    hours_between_failures: float = HOURS_BETWEEN_FAILURES
    launch_microseconds: float = 5.0
    samples_per_second: float | None = None
    num_images: int = COCO_IMAGES
    num_captions: int = COCO_CAPTIONS


@dataclass(frozen=True)
class PlanRequest:
    """Raises UserError where the recipe's batch cannot be split over that many ranks."""

    recipe: Recipe
    device: PlannedDevice
    num_nodes: int
    gpus_per_node: int
    assumptions: Assumptions

    def __post_init__(self) -> None:
        for name, value in (("--nodes", self.num_nodes), ("--gpus-per-node", self.gpus_per_node)):
            if value < 1:
                raise UserError(f"{name}: is {value}, must be at least 1")
        num_micro_batches(self.recipe.train, self.world_size)

    @property
    def world_size(self) -> int:
        """One rank per GPU."""
        return self.num_nodes * self.gpus_per_node

    @property
    def zero_stage(self) -> int:
        return self.recipe.runtime.zero_stage

    @property
    def rows_per_rank(self) -> int:
        """Samples of one rank in one step."""
        return self.recipe.train.global_batch_size // self.world_size

    @property
    def num_micro_batches(self) -> int:
        """Of one rank in one step."""
        return self.rows_per_rank // self.recipe.train.micro_batch_size

    @property
    def link_gb_per_second(self) -> float:
        """Each way, of a ring through all GPUs: a node's ports work together, its slowest part sets the pace."""
        if self.num_nodes == 1:
            return self.device.link_gb_per_second
        return min(self.device.link_gb_per_second, self.gpus_per_node * self.assumptions.node_link)

    @property
    def bytes_per_weight(self) -> int:
        """Of the weights that the forward pass uses."""
        return 2 if self.recipe.train.precision == "bf16" else 4

    @property
    def num_shards(self) -> int:
        """Over how many ranks the optimiser's state is spread."""
        return self.world_size if self.zero_stage > 0 else 1
