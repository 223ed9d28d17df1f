"""``headrace slurm``: the script that runs a study as a job."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from deploy.arguments import Overrides, Study
from deploy.cluster import slurm
from deploy.speaking import exit_codes, say, write_new
from pipeline.errors import ConfigError
from pipeline.study.load import load


def write_slurm(
    study: Study,
    *,
    overrides: Overrides = None,
    script: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File to write. Default: NAME.sbatch; - for the screen."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for the results, as in run.")
    ] = None,
    nodes: Annotated[int, typer.Option(min=1, help="Nodes of the job.")] = 1,
    cpus: Annotated[
        int | None,
        typer.Option(min=1, help="CPUs of each node. Default: as many as the study can use."),
    ] = None,
    gpus: Annotated[int, typer.Option(min=0, help="GPUs of each node.")] = 0,
    memory: Annotated[str | None, typer.Option(help="Memory of each node, e.g. 16G.")] = None,
    time: Annotated[str, typer.Option(help="Limit, e.g. 01:30:00 or 2-00:00:00.")] = "01:00:00",
    partition: Annotated[str | None, typer.Option(help="Default: the cluster's.")] = None,
    account: Annotated[str | None, typer.Option(help="Default: yours.")] = None,
    setup: Annotated[
        list[str] | None,
        typer.Option(metavar="LINE", help="Shell line to run first, e.g. 'module load cuda'."),
    ] = None,
) -> None:
    """Write the script that runs a study as a Slurm job; submit it with sbatch.

    Examples:
      headrace slurm study.yaml --partition short --time 00:30:00

      sbatch heat-2d.sbatch
    """
    with exit_codes():
        config = load(study, overrides or [])
        command = ["headrace", "run", str(study.resolve())]
        command += [word for override in overrides or [] for word in ("--set", override)]
        # Submitted again, or requeued, the job goes on from the newest checkpoint.
        command += [] if out is None else ["--out", str(out.resolve()), "--resume"]
        try:
            options = slurm.SlurmOptions(
                name=config.name,
                command=tuple(command),
                nodes=nodes,
                cpus_per_node=slurm.cpus_per_node(config, nodes) if cpus is None else cpus,
                gpus_per_node=gpus,
                memory=memory,
                time=time,
                partition=partition,
                account=account,
                setup=tuple(setup or ()),
                requeue=out is not None,
            )
        except ValueError as error:
            raise ConfigError([f"--{error}"]) from None
        text = slurm.render(options)
        if script == Path("-"):
            sys.stdout.buffer.write(text.encode())  # a script, whatever the terminal's encoding
            return
        target = Path(f"{config.name}.sbatch") if script is None else script
        write_new(target, text)
        say(f"next: sbatch {target}")
