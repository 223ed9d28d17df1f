"""``headrace record``: what a record holds, its figures, and its export."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from deploy.speaking import exit_codes

app = typer.Typer(no_args_is_help=True, help="Look at the record of a study, or export it.")

Run = Annotated[
    Path,
    typer.Argument(metavar="RUN_DIR", help="A run directory, or the record.zarr in it."),
]


@app.command()
def info(run: Run) -> None:
    """Say what a record holds: samples, members, sizes, arrays and units.

    Examples:
      headrace record info runs/latest
    """
    from deploy.commands import record as records

    with exit_codes():
        for line in records.info(run):
            sys.stdout.write(line + "\n")


@app.command()
def stats(
    run: Run,
    *,
    coverage: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png", help="Draw where the members lie in the space of parameters."
        ),
    ] = None,
) -> None:
    """Compute mean, spread and range of each field and parameter.

    Examples:
      headrace record stats runs/latest --coverage coverage.png
    """
    from deploy.commands import record as records

    with exit_codes():
        for line in records.stats(run):
            sys.stdout.write(line + "\n")
        if coverage is not None:
            records.coverage(run, coverage)
            sys.stdout.write(f"wrote {coverage}\n")


@app.command()
def export(
    run: Run,
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="A new OUT.zarr, OUT.nc (NetCDF) or OUT.h5.")
    ],
) -> None:
    """Write all samples, sorted by member, into one Zarr, NetCDF or HDF5.

    Examples:
      headrace record export runs/latest samples.nc
    """
    from deploy.commands import record as records

    with exit_codes():
        records.export(run, out)
        sys.stdout.write(f"wrote {out}\n")
