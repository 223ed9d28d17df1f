"""Says which PDE a study simulates and how finely: one frozen model per solver, checked at load.

1. Nothing heavy is imported: a study is checked on a machine without PETSc.
2. Every number says its unit, and every refused value says the limit and what to do.
3. ``parameters()`` and ``spec()`` are known before anything runs.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from solvers.base import Parameter, SolverFailed
from solvers.configs.burgers import BurgersConfig
from solvers.configs.cavity import CavityConfig
from solvers.configs.darcy import DarcyConfig
from solvers.configs.gray_scott import GrayScottConfig
from solvers.configs.heat import HeatConfig
from solvers.configs.kuramoto_sivashinsky import KuramotoSivashinskyConfig
from solvers.configs.lorenz import LorenzConfig
from solvers.configs.navier_stokes import NavierStokesConfig
from solvers.configs.own import OwnConfig
from solvers.configs.program import ProgramConfig
from solvers.configs.shallow_water import ShallowWaterConfig
from solvers.configs.wave import WaveConfig

# Fields are yielded as float32, which ends at 3.4e38: this leaves room for the walls' source terms.
_LARGEST_VALUE = 1e30

AnySolverConfig = (
    HeatConfig
    | BurgersConfig
    | KuramotoSivashinskyConfig
    | WaveConfig
    | GrayScottConfig
    | CavityConfig
    | NavierStokesConfig
    | DarcyConfig
    | LorenzConfig
    | ShallowWaterConfig
    | ProgramConfig
    | OwnConfig
)

SolverConfig = Annotated[AnySolverConfig, Field(discriminator="kind")]


def member_values(announced: tuple[Parameter, ...], given: Mapping[str, Any]) -> dict[str, float]:
    """The parameters of one member as plain floats, exactly those that the solver announces.

    Raises:
        ValueError: A name is missing or unknown; the caller is wrong, not the member.
        SolverFailed: A value cannot be computed with.
    """
    names = [parameter.name for parameter in announced]
    if set(given) != set(names):
        raise ValueError(
            f"parameters={sorted(given)}: this solver needs exactly {names} "
            f"(missing: {sorted(set(names) - set(given))}, "
            f"unknown: {sorted(set(given) - set(names))})"
        )
    values = {name: float(given[name]) for name in names}
    for parameter in announced:
        value = values[parameter.name]
        if not abs(value) <= _LARGEST_VALUE:  # written so that NaN is refused too
            raise SolverFailed(
                f"{parameter.name}={value:g} {parameter.unit}: not a finite number of magnitude "
                f"<= {_LARGEST_VALUE:g}; meant for [{parameter.low:g}, {parameter.high:g}]"
            )
    return values
