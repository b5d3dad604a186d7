"""Whether what several ranks hold is the same on all of them, bit for bit.

Compared are the weights in the training's precision. Stage 0: each rank's own, so that a flipped bit stays and is found
at the next comparison. Stages 1 and 2: the copies that each rank gathers after an update; a bit that flips there is
found if that update was the last one before a comparison, and is otherwise undone by the next update. Stage 3: nothing
is held twice. At stages 1 to 3 each rank also compares its own part with the float32 weights that it was rounded from.
Not found is a bit that flips in float32 weights or moments at stages 1 to 3: it reaches all ranks as any update does.
"""

import socket
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from ifvit.runtime.agreement import gathered
from ifvit.runtime.distributed import Ranks
from ifvit.runtime.fault_injection import fault_tensor
from ifvit.runtime.standard_error import say
from ifvit.training.engine import DeepSpeedEngine
from ifvit.training.fragments import Fragment, training_weights
from ifvit.training.state import ReplicaError, StepResult, TrainState

MAX_NAMED = 4  # parameters


class Holdings(NamedTuple):
    """What one rank holds, where the ranks are not at one."""

    host: str
    digests: dict[str, tuple[int, ...]]  # of the weights that it holds whole, by parameter
    owned: frozenset[str]  # the parameters whose float32 weights it alone holds
    damaged: frozenset[str]  # the parameters whose own part differs from its float32 weights


class ReplicaHook:
    """Raises ReplicaError on all ranks, every `every_steps` steps, where weights differ. Before the checkpoint hook."""

    def __init__(self, engine: DeepSpeedEngine, ranks: Ranks, every_steps: int) -> None:
        self.engine = engine
        self.ranks = ranks
        self.every_steps = every_steps
        self.equal_step = 0

    def on_start(self, state: TrainState) -> None:
        self.equal_step = state.step

    def on_step(self, state: TrainState, result: StepResult) -> None:
        weights = training_weights(self.engine.module)
        fault_tensor("step.replica", weights[0].values, state.step)
        if state.step % self.every_steps:
            return
        whole = [weight for weight in weights if weight.is_whole]
        # To the CPU one by one: what is empty, all digests at stage 3, was never on the device.
        digests = torch.stack([digest(weight.values) for weight in whole]).cpu() if whole else torch.zeros(0, 2).long()
        differs = self.own_parts_differ().cpu()
        # The largest and the smallest of each, in one operation: ~x is the largest where x is the smallest.
        seen = torch.cat((digests.flatten(), ~digests.flatten(), differs.any().view(1).long()))
        dist.all_reduce(seen, dist.ReduceOp.MAX)
        largest, smallest = seen[: digests.numel()], ~seen[digests.numel() : -1]
        if not seen[-1] and torch.equal(largest, smallest):
            self.equal_step = state.step
            return
        values = digests.tolist()
        own = Holdings(
            socket.gethostname(),
            {weight.name: tuple(value) for weight, value in zip(whole, values, strict=True)},
            frozenset(f.name for f in self.engine.fragments if self.is_sole_owner(f)),
            frozenset(f.name for f, is_other in zip(self.engine.fragments, differs.tolist(), strict=True) if is_other),
        )
        found = accusations(gathered(self.ranks, own))
        raise ReplicaError(
            f"the ranks' weights are not the same after step {state.step}: {'; '.join(found)}; the last comparison "
            f"that found no difference was after step {self.equal_step}"
        )

    def on_stop(self, state: TrainState) -> None: ...

    def is_sole_owner(self, fragment: Fragment) -> bool:
        whole = next(weight for weight in training_weights(self.engine.module) if weight.name == fragment.name)
        return self.engine.is_sharded and fragment.weight.numel() == whole.values.numel()

    def own_parts_differ(self) -> Tensor:
        """(number of fragments,) bool: whether the rounded float32 weights are other bits than what is trained with."""
        by_name = {weight.name: weight for weight in training_weights(self.engine.module)}
        results = []
        for fragment in self.engine.fragments:
            weight = by_name[fragment.name]
            start = fragment.start if weight.is_whole else 0
            part = weight.values.narrow(0, start, fragment.weight.numel())
            results.append((bits(fragment.weight.to(part)) != bits(part)).any())
        return torch.stack(results) if results else torch.zeros(0, dtype=torch.bool)


def replica_hooks(engine: DeepSpeedEngine, ranks: Ranks, every_steps: int) -> list[ReplicaHook]:
    """The hook that compares the ranks. One rank has none, and says so: the number of ranks is not the recipe's."""
    if ranks.world_size == 1:
        say("runtime.replica_check_every_steps: does nothing on one rank, which has none to compare")
        return []
    return [ReplicaHook(engine, ranks, every_steps)]


def digest(values: Tensor) -> Tensor:
    """(2,) int64 of (numel,) bf16 or float32: the sum of the bit patterns and of their squares, modulo 2^64."""
    patterns = bits(values).long()
    return torch.stack((patterns.sum(), (patterns * patterns).sum()))


def bits(values: Tensor) -> Tensor:
    """The bit patterns as integers: 0.0 and -0.0 differ, a NaN is the same as itself."""
    return values.view(torch.int32 if values.element_size() == 4 else torch.int16)


def accusations(holdings: Sequence[Holdings]) -> list[str]:
    """A line for each rank that differs from the one that must be right, or from most; one line if that is open."""
    wrong: dict[int, list[str]] = {}
    undecided: list[str] = []
    for name in sorted({*holdings[0].digests, *(name for each in holdings for name in each.damaged)}):
        held = {rank: each.digests[name] for rank, each in enumerate(holdings) if name in each.digests}
        accused = {rank for rank, each in enumerate(holdings) if name in each.damaged}
        if len(set(held.values())) > 1:
            owners = [rank for rank, each in enumerate(holdings) if name in each.owned and rank not in accused]
            value, votes = Counter(held.values()).most_common(1)[0]
            if owners:
                accused |= {rank for rank in held if held[rank] != held[owners[0]]}
            elif 2 * votes > len(held):
                accused |= {rank for rank in held if held[rank] != value}
            elif not accused:
                undecided.append(name)
        for rank in accused:
            wrong.setdefault(rank, []).append(name)
    lines = [f"rank {rank} on {holdings[rank].host} differs in {listed(names)}" for rank, names in wrong.items()]
    if undecided:
        lines.append(f"no majority of the {len(holdings)} ranks says which is right in {listed(undecided)}")
    return lines


def listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more parameters" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more
