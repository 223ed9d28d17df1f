"""Arguments that several commands take."""

from pathlib import Path
from typing import Annotated

import typer

Study = Annotated[
    Path,
    typer.Argument(metavar="STUDY", help="The study, a YAML file. `headrace init` writes one."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change one key, e.g. [b]--set trainer.batch=20[/b]; the value is read as YAML. "
        "May be given several times.",
    ),
]
