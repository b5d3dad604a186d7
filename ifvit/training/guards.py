"""What guards a training run from its start on, also while it loads: stop requests and the phases that are told."""

from contextlib import ExitStack
from types import TracebackType

from ifvit.config.schema import RuntimeConfig
from ifvit.runtime.distributed import Ranks
from ifvit.runtime.stop_requests import StopRequests
from ifvit.training.phases import START, Phases
from ifvit.training.stopping import StopHook


class Guards:
    """In force inside its `with` block.

    Attributes:
        phases: to be told where this process is.
    """

    def __init__(self, runtime: RuntimeConfig, ranks: Ranks) -> None:
        self.ranks = ranks
        self.phases = Phases()
        self.requests = StopRequests(ranks.rank == 0, runtime.max_hours)
        self.stack = ExitStack()

    def __enter__(self) -> "Guards":
        self.stack.enter_context(self.requests)
        self.phases.enter(START, 0)
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stack.close()

    def stop_hook(self, max_steps: int) -> StopHook:
        """For the loop: first of the hooks, so that all others know in the same step."""
        return StopHook(self.ranks, self.requests, self.phases, max_steps)
