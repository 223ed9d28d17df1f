"""What the settings of every solver have in common, and those of a PDE that is solved in steps.

1. A config says where its solver lies; ``AnySolverConfig`` of ``solvers.config`` lists the configs,
   and that is all a new solver has to be named in.
"""

from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, StrictInt

__all__ = ["BaseConfig", "Count", "Positive", "SteppedConfig"]

Positive = Annotated[FiniteFloat, Field(gt=0)]
Count = Annotated[StrictInt, Field(ge=1)]


class BaseConfig(BaseModel):
    """Settings of one kind of solver.

    Attributes:
        target: ``module:Class``, imported on demand; the class takes the config alone.
        summary: What it simulates, in one line.
        distributed: Whether it is a ``solvers.base.Distributed``: runs on several mpi_ranks.
        kind: Name of the solver in a study.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: ClassVar[str]
    summary: ClassVar[str]
    distributed: ClassVar[bool] = True

    kind: str


class SteppedConfig(BaseConfig):
    """Settings of a solver whose snapshots are ``dt`` apart."""

    steps: Count
    dt: Positive

    @property
    def max_snapshots(self) -> int:
        """Snapshots of one member, the initial state included."""
        return self.steps + 1

    @property
    def end_time(self) -> float:
        """Time of the last snapshot, in the unit of ``dt``."""
        return self.steps * self.dt
