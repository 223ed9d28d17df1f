"""``headrace compare``: the same network trained online and offline."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from deploy import launch
from deploy.arguments import Overrides, Study
from deploy.speaking import exit_codes
from pipeline.study.load import load


def compare(
    study: Study,
    *,
    overrides: Overrides = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A new folder. Default: comparisons/NAME-DATE-TIME."),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            min=1.0,
            help="Wall time of each method, from the start of its first process. Default: online "
            "all members are run, offline as many passes as NAME:PASSES says.",
        ),
    ] = None,
    members: Annotated[
        int | None, typer.Option(min=1, help="Members of the data set. Default: the study's.")
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, help="Repeat with so many seeds, from the study's on.")
    ] = 1,
    methods: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            help="Online: reservoir, firo, fifo. From files: npy (shuffles all samples, one read "
            "for each), npy-member and zarr (whole members, shuffled in a pool), ram (npy, held in "
            "memory); each may say "
            "NAME:PASSES, and NAME@disk for the data set that --disk allows.",
        ),
    ] = None,
    disk: Annotated[
        str | None,
        typer.Option(metavar="BYTES", help="Also train on what fits here, e.g. 100MB."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Processes that read files for each rank. Default: ensemble.concurrent.",
        ),
    ] = None,
    keep_data: Annotated[
        bool, typer.Option("--keep-data", help="Leave the data set in DIR/data.")
    ] = False,
) -> None:
    """Train the same network online and offline, and report which way wins at what.

    The data set is written by the study's own solvers; the time that takes is shown apart. Before
    each pass over files the page cache is dropped for them.

    Examples:
      headrace compare study.yaml --members 50

      headrace compare study.yaml --seconds 120 --methods reservoir,npy,zarr --seeds 3

      headrace compare study.yaml --disk 100MB
    """
    with exit_codes():
        from deploy.compare.plan import plan
        from deploy.compare.run import compare as run_all

        config = load(study, overrides or [])
        made = plan(
            config,
            methods=methods,
            seconds=seconds,
            members=members,
            seeds=seeds,
            disk=disk,
            workers=workers,
            keep_data=keep_data,
        )
        launch.warn(config)
        if out is None:
            out = launch.new_folder(Path("comparisons"), config.name, datetime.now())
        run_all(made, out.resolve())
