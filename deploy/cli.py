"""The command line: reads what was asked for, hands it to the part that does it, says the outcome.

1. Exit codes: 0 done, or stopped by SIGTERM with a checkpoint; 1 the study failed; 2 bad input;
   130 Ctrl-C; 143 SIGTERM before there was a checkpoint.
2. Nothing heavy is imported before a command needs it.
"""

import os
import sys
from datetime import datetime
from importlib import metadata, resources
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deploy import launch
from deploy.arguments import Overrides, Study
from deploy.cluster import machine
from deploy.cluster.command import write_slurm
from deploy.commands import describe as costs
from deploy.commands import record_cli
from deploy.compare.command import compare
from deploy.drill.command import drill
from deploy.speaking import exit_codes, say, speak_anywhere, write_new
from deploy.watch import tables as overview
from pipeline.control import rundir
from pipeline.errors import ConfigError
from pipeline.guards import DISTRIBUTION, check_packages
from pipeline.slots.shared_files import remove_stale
from pipeline.study.load import load
from pipeline.study.own_network import network_problems
from pipeline.study.problems import counted
from solvers.registry import SOLVERS

app = typer.Typer(
    name="headrace",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(record_cli.app, name="record")


def main() -> None:
    """Entry point of the ``headrace`` program."""
    speak_anywhere()
    app()


def _print_version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"headrace {metadata.version(DISTRIBUTION)}\n")
        raise typer.Exit


@app.callback()
def _root(
    *,
    _version: Annotated[
        bool,
        typer.Option(
            "--version",
            is_eager=True,
            callback=_print_version,
            help="Print the version and exit.",
        ),
    ] = False,
) -> None:
    """Train a neural surrogate of a PDE from simulations that run at this moment.

    A study is one YAML file. Start with:

      headrace init                   write a commented study.yaml

      headrace check study.yaml       see what it will do and need

      headrace run study.yaml         run it, and watch it learn
    """
    with exit_codes():
        check_packages()


@app.command()
def run(
    study: Study,
    *,
    overrides: Overrides = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="A new folder for the results. Default: runs/NAME-DATE-TIME, with the link "
            "runs/latest.",
        ),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show no progress, only the result.")
    ] = False,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="Serve the figures of the progress display to Prometheus on this port; 0 chooses "
            "a free one. Default: not served.",
        ),
    ] = None,
    metrics_host: Annotated[
        str, typer.Option(help="Address that the metrics are served on.")
    ] = "127.0.0.1",
    again: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the study in --out from its newest checkpoint, if it has begun.",
        ),
    ] = False,
) -> None:
    """Run a study: simulate, train, and leave a surrogate and a report.

    Ctrl-C and SIGTERM stop it after a checkpoint; `headrace resume` goes on from there.

    Examples:
      headrace run study.yaml

      headrace run study.yaml --set ensemble.members=20 --set trainer.ranks=1

      headrace run study.yaml --out results/first
    """
    with exit_codes():
        if again and out is None:
            raise ConfigError(["--resume: which study? Name its folder with --out as well"])
        again = again or (out is not None and launch.asks_to_go_on(out))
        config = launch.ready_to_run(study, overrides or [], out, os.environ, again=again)
        launch.warn(config)
        begun = out is not None and rundir.RunPaths(out).resolved.exists()
        folder = launch.new_folder(launch.RUNS, config.name, datetime.now()) if out is None else out
        launch.run_study(
            config,
            folder.resolve(),
            source=None if again and begun else study.read_text(encoding="utf-8"),
            watching=launch.Watching(
                progress=not quiet,
                metrics_host=metrics_host,
                metrics_port=metrics_port,
                latest=out is None,
            ),
        )


@app.command()
def resume(
    out: Annotated[
        Path, typer.Argument(metavar="RUN_DIR", help="The folder of the study, as in run --out.")
    ],
    *,
    overrides: Overrides = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show no progress, only the result.")
    ] = False,
    metrics_port: Annotated[int | None, typer.Option(min=0, max=65535, help="As in run.")] = None,
    metrics_host: Annotated[str, typer.Option(help="As in run.")] = "127.0.0.1",
) -> None:
    """Go on with a study that was stopped or killed, from its newest valid checkpoint.

    Of its keys only trainer.ranks, ensemble.concurrent, reservoir.capacity and those of checkpoint
    may change.

    Examples:
      headrace resume runs/latest

      headrace resume runs/latest --set trainer.ranks=1
    """
    with exit_codes():
        config = launch.ready_to_resume(out, overrides or [], os.environ)
        launch.run_study(
            config,
            out.resolve(),
            source=None,
            watching=launch.Watching(
                progress=not quiet, metrics_host=metrics_host, metrics_port=metrics_port
            ),
        )


@app.command()
def check(
    study: Study,
    *,
    overrides: Overrides = None,
    elsewhere: Annotated[
        bool,
        typer.Option(
            "--elsewhere",
            help="The study will run on another machine: do not hold it against the GPUs, the "
            "shared memory and the programs of this one.",
        ),
    ] = False,
) -> None:
    """Check a study and say what it will do and need; nothing is started.

    All errors are listed at once. Works on a login node, without GPU, PETSc or torch. A network of
    your own is tried on two samples, where torch is installed.

    Examples:
      headrace check study.yaml

      headrace check study.yaml --set reservoir.capacity=20000 --elsewhere
    """
    with exit_codes():
        config = load(study, overrides or [])
        found = [] if elsewhere else machine.problems_of(config)
        if found := found + network_problems(config):
            raise ConfigError(found)
        Console().print(overview.table(config))
        launch.warn(config)


def kinds_and_files(incomplete: str) -> list[str]:
    """What the shell offers for the argument of ``describe``: kinds, then files."""
    files = [f"{path}/" if path.is_dir() else str(path) for path in Path().glob(f"{incomplete}*")]
    return [each for each in [*SOLVERS, *sorted(files)] if each.startswith(incomplete)]


@app.command()
def describe(
    solver: Annotated[
        str | None,
        typer.Argument(
            metavar="[SOLVER]",
            help="A kind, e.g. heat; your own FILE.py:CLASS; or a study. Default: list all kinds.",
            autocompletion=kinds_and_files,
        ),
    ] = None,
    *,
    cost: Annotated[
        bool | None,
        typer.Option(
            "--cost/--no-cost",
            help="Measure what one member costs on this machine: about a second for each solver. "
            "Default: yes for one solver, no for the list.",
        ),
    ] = None,
    models: Annotated[
        bool, typer.Option("--models", help="The networks, their options and sizes instead.")
    ] = False,
) -> None:
    """Explain a solver: equation, scheme, parameters, settings, units, and cost of a member.

    Examples:
      headrace describe

      headrace describe heat

      headrace describe cavity.py:Cavity

      headrace describe study.yaml      with its settings, and the cost of all its members

      headrace describe --models
    """
    with exit_codes():
        if models:
            if solver is not None:
                line = f"{solver}: --models lists the networks, and takes no argument"
                raise ConfigError([f"{line}. `headrace check` tries a network of your own"])
            sys.stdout.write(costs.networks() + "\n")
            return
        if solver is None:
            for line in costs.listing(measured=cost is True):
                sys.stdout.write(line + "\n")
        else:
            for text in costs.description(solver, measured=cost is not False):
                sys.stdout.write(text + "\n")


@app.command()
def simulate(
    study: Study,
    *,
    member: Annotated[
        int,
        typer.Option(
            min=0,
            help="Its number. Validation members have the lowest, then come the training members.",
        ),
    ] = 0,
    overrides: Overrides = None,
    plot: Annotated[
        bool, typer.Option("--plot", help="Draw snapshots into NAME-member-N.png.")
    ] = False,
    animate: Annotated[
        bool, typer.Option("--animate", help="Draw a film into NAME-member-N.gif.")
    ] = False,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the pictures.")] = Path(),
) -> None:
    """Simulate one member of a study alone, here and now, and show its snapshots.

    It has exactly the parameters that it has in a run. Nothing is trained, no Ray is started.

    Examples:
      headrace simulate study.yaml --member 3 --plot

      headrace simulate study.yaml --set solver.dt=0.005 --animate --out pictures
    """
    from deploy.commands.simulate import Pictures
    from deploy.commands.simulate import simulate as show

    with exit_codes():
        config = load(study, overrides or [])
        show(config, member, Pictures(folder=out, plot=plot, animate=animate))


app.command()(compare)


app.command()(drill)


@app.command()
def init(
    path: Annotated[
        Path, typer.Argument(metavar="[PATH]", help="File to write; must not exist.")
    ] = Path("study.yaml"),
) -> None:
    """Write a small commented study to start from.

    Examples:
      headrace init

      headrace init studies/plate.yaml
    """
    with exit_codes():
        text = resources.files("deploy").joinpath("templates", "study.yaml").read_text("utf-8")
        write_new(path, text)
        say(f"next: headrace check {path}, then headrace run {path}")


app.command(name="slurm")(write_slurm)


@app.command()
def export(
    run_dir: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_DIR", help="Run directory of a study that has ended, or its model/."
        ),
    ],
    *,
    onnx: Annotated[
        bool, typer.Option("--onnx", help="Write surrogate.onnx, too; needs headrace[onnx].")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A new folder to hand on, with weights and card."),
    ] = None,
) -> None:
    """Write a surrogate as a program that runs with torch alone, or as ONNX.

    Physical units go in and come out. docs/python.md says how to call it.

    Examples:
      headrace export runs/latest

      headrace export runs/latest --onnx --out surrogate
    """
    from deploy.commands.export import export as hand_on

    with exit_codes():
        hand_on(run_dir, onnx=onnx, out=out)


@app.command()
def clean() -> None:
    """Remove what a killed study has left behind: shared memory, sockets. Others keep theirs.

    Examples:
      headrace clean
    """
    from pipeline.stream.sockets import remove_stale_sockets  # brings ZeroMQ
    from solvers.program.leash import remove_unused_segments

    with exit_codes():
        names = remove_stale() + remove_stale_sockets() + remove_unused_segments()
        for name in names:
            sys.stdout.write(f"removed {name}\n")
        say(f"{counted(len(names), 'stale file')} removed")
