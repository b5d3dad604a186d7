"""Where in a step this process is: for heartbeats, which name it, and for step times, which add it up."""

from collections.abc import Callable

from ifvit.runtime.fault_injection import fault_point

DATA, FORWARD, BACKWARD, OPTIMIZER, HOOKS = "data", "forward", "backward", "optimizer", "hooks"


class Phases:
    """Told by the loop which phase begins. Telling costs an assignment, unless somebody listens.

    Attributes:
        name: of the phase this process is in.
        listener: called with the name of each phase that begins, or None.
    """

    def __init__(self) -> None:
        self.name = "start"
        self.listener: Callable[[str], None] | None = None

    def enter(self, name: str, step: int) -> None:
        """Phase `name` of the step that is being made, counted from 1, begins."""
        self.name = name
        if self.listener is not None:
            self.listener(name)
        fault_point(f"step.{name}", step)
