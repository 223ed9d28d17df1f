"""``headrace drill``: kill the parts of a study, and see whether anything is lost."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from deploy import launch
from deploy.arguments import Overrides
from deploy.speaking import FAILED, exit_codes


def drill(
    study: Annotated[
        Path | None,
        typer.Argument(
            metavar="[STUDY]", help="A small study. Default: one that is built in, of a plate."
        ),
    ] = None,
    *,
    overrides: Overrides = None,
    faults: Annotated[int, typer.Option(min=1, help="How many.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Of the plan of faults.")] = 0,
    kinds: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", help="Of faults. Default: all that the study can suffer."),
    ] = None,
    references: Annotated[
        int,
        typer.Option(min=0, help="Undisturbed runs to compare with; three have a spread."),
    ] = 1,
    nodes: Annotated[
        int, typer.Option(min=1, help="Make so many Ray nodes of this machine, to lose one.")
    ] = 1,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A new folder. Default: drills/NAME-DATE-TIME."),
    ] = None,
) -> None:
    """Run a small study, kill its parts one after the other, and see whether anything is lost.

    Kills solvers, mpi_ranks, foreign programs, reservoirs, trainer ranks and the driver, stops
    a solver, and lets checkpoints find no room. Exit code 0 only if nothing was lost or stored
    twice.

    Examples:
      headrace drill

      headrace drill study.yaml --faults 60 --references 3

      headrace drill study.yaml --kinds solver,driver --set ensemble.members=200
    """
    with exit_codes():
        from deploy.drill.ask import asked_for
        from deploy.drill.run import drill as run_all

        now = datetime.now()
        asked = asked_for(study, overrides or [], faults, seed, kinds, references, nodes, out, now)
        launch.warn(asked.study)
        if not run_all(asked).passed:
            raise typer.Exit(FAILED)
