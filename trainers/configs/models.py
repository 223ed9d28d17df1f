"""The networks as they stand under ``trainer.model`` in a study: one frozen model per kind.

Invariants (``tests/unit/trainers/configs/test_models.py``):

1. Importing it brings no torch, and nothing of the libraries that some kinds are built on.
2. Unknown keys are refused, but for the settings of a user's own network, which go to its class.
3. What a network cannot do on a grid is known from its settings alone (``model_problems``).
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator


class Section(BaseModel):
    """A part of a study, frozen and without keys that nobody reads."""

    model_config = ConfigDict(frozen=True, extra="forbid")


_Width = Annotated[int, Field(ge=1, le=65_536)]
_Widths = tuple[_Width, ...]
_Modes = Annotated[int, Field(ge=1, le=65_536)]
_Share = Annotated[float, Field(ge=0.0, le=1.0)]
Activation = Literal["relu", "gelu", "silu", "tanh"]
Conditioning = Literal["channels", "film"]

_CONDITIONING = (
    "how parameters and time enter: channels of constant value, or film, a scale and shift of the "
    "features after every block"
)
_PADDING = "zeros behind each axis, as a fraction of its points, where fields are not periodic"
_N_MODES = (
    "Fourier modes kept along each axis, both signs counted: a number, of which an axis with fewer "
    "points keeps all it has, or one number per axis"
)


class MlpConfig(Section):
    """A fully connected network."""

    kind: Literal["mlp"] = "mlp"
    hidden: _Widths = Field(
        default=(256, 256), max_length=64, description="width of each hidden layer"
    )
    activation: Activation = Field(default="relu", description="between the layers")


class UnetConfig(Section):
    """A U-Net (arXiv:1505.04597)."""

    kind: Literal["unet"] = "unet"
    channels: _Width = Field(default=32, description="features on the finest grid")
    depth: int = Field(default=3, ge=1, le=12, description="times the grid is halved")
    norm: Literal["group", "none"] = Field(
        default="group", description="normalisation of the features of a sample"
    )
    activation: Activation = Field(default="gelu", description="after each convolution")
    periodic: bool = Field(default=False, description="whether the domain is periodic")
    conditioning: Conditioning = Field(default="channels", description=_CONDITIONING)


class _FourierConfig(Section):
    """What Fourier neural operators on one grid have in common."""

    n_modes: _Modes | tuple[_Modes, ...] = Field(default=16, description=_N_MODES)
    channels: _Width = Field(default=32, description="features at each point")
    layers: int = Field(default=4, ge=1, le=64, description="Fourier layers")
    domain_padding: _Share = Field(default=0.0, description=_PADDING)
    conditioning: Conditioning = Field(default="channels", description=_CONDITIONING)


class FnoConfig(_FourierConfig):
    """A Fourier neural operator (arXiv:2010.08895)."""

    kind: Literal["fno"] = "fno"


class TfnoConfig(_FourierConfig):
    """A Fourier neural operator with weights in Tucker form (arXiv:2310.00120)."""

    kind: Literal["tfno"] = "tfno"
    rank: float = Field(
        default=0.1, gt=0.0, le=1.0, description="spectral weights, as a fraction of those of fno"
    )


class UnoConfig(Section):
    """A U-shaped neural operator (arXiv:2204.11127)."""

    kind: Literal["uno"] = "uno"
    n_modes: _Modes | tuple[_Modes, ...] = Field(default=16, description=_N_MODES)
    channels: _Width = Field(default=32, description="features on the finest grid")
    depth: int = Field(default=2, ge=1, le=12, description="times the grid is halved")
    conditioning: Conditioning = Field(default="channels", description=_CONDITIONING)


class DeepONetConfig(Section):
    """A deep operator network (arXiv:1910.03193)."""

    kind: Literal["deeponet"] = "deeponet"
    basis: _Width = Field(default=64, description="basis functions of each channel")
    branch: _Widths = Field(
        default=(128, 128),
        max_length=64,
        description="hidden layers over parameters, time and input fields; []: linear",
    )
    trunk: _Widths = Field(
        default=(128, 128), max_length=64, description="hidden layers over the coordinates"
    )
    stride: int = Field(
        default=1, ge=1, le=65_536, description="every n-th point of an input field is looked at"
    )
    activation: Activation = Field(default="gelu", description="between the layers")


class MessagePassingConfig(Section):
    """A message-passing neural PDE solver (arXiv:2202.03376)."""

    kind: Literal["message_passing"] = "message_passing"
    channels: _Width = Field(default=64, description="features of a node")
    layers: int = Field(default=4, ge=1, le=64, description="rounds of messages")
    neighbours: int = Field(
        default=1, ge=1, le=16, description="farthest node that sends, in grid cells along an axis"
    )
    norm: Literal["layer", "instance"] = Field(
        default="layer", description="of each update: over its features, or over the grid"
    )
    activation: Activation = Field(default="silu", description="after each layer")
    periodic: bool = Field(default=False, description="whether the domain is periodic")


class OwnModelConfig(Section):
    """A network of one's own: a class in a Python file; further keys are its settings."""

    model_config = ConfigDict(extra="allow", serialize_by_alias=True)

    kind: Literal["own"] = "own"
    path: str = Field(min_length=1, description="Python file")
    class_name: str = Field(
        alias="class", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="class in that file"
    )

    @model_validator(mode="before")
    @classmethod
    def _tuples(cls, tree: object) -> object:
        """Lists as tuples, so that what was read from JSON equals what was read from YAML."""
        return _frozen(tree)

    @property
    def settings(self) -> dict[str, Any]:
        """The keys that go to the class."""
        return dict(self.model_extra or {})


def _frozen(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _frozen(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_frozen(inner) for inner in value)
    return value


def _own_where_a_path_is_given(tree: object) -> object:
    if isinstance(tree, Mapping) and "kind" not in tree and "path" in tree:
        return {"kind": "own", **tree}
    return tree


AnyModelConfig = (
    MlpConfig
    | UnetConfig
    | FnoConfig
    | TfnoConfig
    | UnoConfig
    | DeepONetConfig
    | MessagePassingConfig
    | OwnModelConfig
)

ModelConfig = Annotated[
    Annotated[AnyModelConfig, Field(discriminator="kind")],
    BeforeValidator(_own_where_a_path_is_given),
]
