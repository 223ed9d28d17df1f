"""What is predicted from what, as it stands under ``trainer.task`` in a study.

1. ``window`` is how many consecutive snapshots a sample holds; ``needed`` how many of them one
   training example takes.
2. Importing it brings no torch.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from trainers.configs.models import Section as _Section

MAX_WINDOW = 1024  # snapshots in a sample


class _MapConfig(_Section):
    """What tasks have in common that go from inputs to fields."""

    window: int = Field(
        default=1, ge=1, le=MAX_WINDOW, description="consecutive snapshots in a sample"
    )
    stride: int = Field(default=1, ge=1, description="snapshots from one sample to the next")


class DirectConfig(_MapConfig):
    """(parameters, time, input fields where there are any) -> fields."""

    kind: Literal["direct"] = "direct"


class OperatorConfig(_MapConfig):
    """(input fields, parameters, time) -> fields; refused where no field is given."""

    kind: Literal["operator"] = "operator"


class _StepConfig(_Section):
    """What tasks have in common that go from snapshots to later snapshots."""

    history: int = Field(default=1, ge=1, le=64, description="snapshots that are given")
    trajectory: int | None = Field(
        default=None,
        ge=2,
        le=MAX_WINDOW,
        description="consecutive snapshots in a sample, of which a random part is trained on; "
        "null: as many as are needed",
    )
    stride: int = Field(default=1, ge=1, description="snapshots from one sample to the next")

    @property
    def needed(self) -> int:
        """Snapshots that one training example takes."""
        raise NotImplementedError

    @property
    def window(self) -> int:
        """Consecutive snapshots in a sample."""
        return self.needed if self.trajectory is None else self.trajectory

    @model_validator(mode="after")
    def _long_enough(self) -> Self:
        if self.window < self.needed:
            raise ValueError(
                f"trajectory={self.trajectory} snapshots, but one example takes {self.needed}: "
                "raise it, or leave it out"
            )
        return self


class _AheadConfig(_StepConfig):
    """What tasks have in common that are trained on single predictions."""

    ahead: int = Field(default=1, ge=1, le=64, description="snapshots predicted at once")

    @property
    def needed(self) -> int:
        """Snapshots that one training example takes."""
        return self.history + self.ahead


class NextConfig(_AheadConfig):
    """The last snapshots -> the next ones."""

    kind: Literal["next"] = "next"


class DeltaConfig(_AheadConfig):
    """The last snapshots -> the change from the last to the next ones."""

    kind: Literal["delta"] = "delta"


class DerivativeConfig(_StepConfig):
    """The last snapshot -> its time derivative, which is integrated (arXiv:2412.13074)."""

    kind: Literal["derivative"] = "derivative"
    history: Literal[1] = Field(default=1, description="snapshots that are given")
    integrator: Literal["euler", "heun", "rk4"] = Field(
        default="heun", description="how predictions go on in time"
    )

    @property
    def needed(self) -> int:
        """A difference ahead for Euler, which it integrates exactly; else a central one."""
        return 2 if self.integrator == "euler" else 3


class BundleConfig(_StepConfig):
    """The last snapshots -> the changes to several next ones, with the pushforward trick."""

    kind: Literal["bundle"] = "bundle"
    ahead: int = Field(default=4, ge=1, le=64, description="snapshots predicted at once")
    pushforward: int = Field(
        default=1, ge=0, le=16, description="most predictions that an example starts from"
    )

    @property
    def needed(self) -> int:
        """Snapshots that one training example takes."""
        return self.history + self.ahead * (1 + self.pushforward)


TaskConfig = Annotated[
    DirectConfig | OperatorConfig | NextConfig | DeltaConfig | DerivativeConfig | BundleConfig,
    Field(discriminator="kind"),
]
