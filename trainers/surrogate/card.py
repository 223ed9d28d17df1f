"""The card of a surrogate: what it is, what it was trained on, how wrong it is and where.

``card.json`` is for programs, and what a surrogate is read back from; ``card.md`` says the same to
people. The trainer writes both at the end; whoever ran the study adds what only it knows.

Invariants (``tests/unit/trainers/surrogate/test_card.py``):

1. Both files appear whole or not at all, ``card.json`` last.
2. A part that is unknown leaves its section out of ``card.md``; it is never an error.
3. Nothing here needs torch: a card is read and completed without it.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from trainers.durable import json_text, write_atomically
from trainers.results import P95_MEMBERS, P99_MEMBERS

Card = dict[str, Any]
FORMAT: Final = 2
STATISTICS: Final = ("mean", "median", "p95", "p99", "max", "std")
HEADINGS: Final = ("mean", "median", "95 %", "99 %", "largest", "std")
INFINITE: Final = "infinite"


def find(path: Path | str) -> Path:
    """The folder of a card.

    Args:
        path: The folder with ``card.json``, or a run directory that has it under ``model/``.

    Raises:
        FileNotFoundError: There is no complete surrogate.
    """
    folder = Path(path)
    if not (folder / "card.json").exists() and (folder / "model" / "card.json").exists():
        folder = folder / "model"
    if not (folder / "card.json").exists():
        raise FileNotFoundError(
            f"{path} holds no card.json, so no surrogate was exported there. Give the run "
            "directory of a study that has ended, or its folder model/"
        )
    return folder


def read(folder: Path) -> Card:
    """Read ``card.json``.

    Raises:
        ValueError: It is of a format that this version does not know.
    """
    card: Card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    if card["format"] != FORMAT:
        raise ValueError(
            f"{folder}: card.json has format {card['format']}, this version reads {FORMAT}. Read "
            "it with the version of headrace that wrote it"
        )
    return card


def write(folder: Path, card: Card) -> None:
    """Write ``card.md``, then ``card.json``; either replaces what was there."""
    strict = json_text(card, indent=2) + "\n"
    for name, text in (("card.md", render(json.loads(strict))), ("card.json", strict)):
        write_atomically(folder / name, text)


def complete(folder: Path, facts: Mapping[str, Any]) -> None:
    """Add what is known of the study, as the card's ``study``, and write both files again."""
    write(folder, read(folder) | {"study": dict(facts)})


def render(card: Card) -> str:
    """The card as a person reads it, in Markdown; a number that is not finite is None in it."""
    study = card.get("study", {})
    lines = [f"# Surrogate of {study['name']}" if "name" in study else "# Surrogate", ""]
    lines += [_in_one_sentence(card), ""]
    sections = {
        "Inputs": _inputs(card),
        "Fields": _fields(card),
        "Errors": _errors(card),
        "Errors by region": _regions(study.get("errors_by_region") or []),
        "Training": _training(card),
        "Cost": _cost(card),
        "Study": _study(study),
        "Versions": _list((card.get("versions") or {}) | study.get("versions", {})),
    }
    for title, section in sections.items():
        content = list(section)
        if content:
            lines += [f"## {title}", "", *content, ""]
    return "\n".join(lines)


def _in_one_sentence(card: Card) -> str:
    trainer, problem, network = card["trainer"], card["problem"], card.get("network") or {}
    weights = f" with {network['parameters']:,} weights" if "parameters" in network else ""
    given, names = list(problem["input_fields"]), list(problem["field_names"])
    predicted = names[: len(names) - len(given)]
    history = trainer["task"].get("history")
    before = [] if history is None else [f"{history} snapshot(s) of {', '.join(predicted)}"]
    inputs = ["parameters", "time", *before, *given]
    grid = " x ".join(str(points) for points in problem["shape"])
    return (
        f"Task `{trainer['task']['kind']}`, network `{trainer['model']['kind']}`{weights}: "
        f"{', '.join(inputs[:-1])} and {inputs[-1]} to {', '.join(predicted)} on {grid} points."
    )


def _inputs(card: Card) -> list[str]:
    problem, scale = card["problem"], card["normalization"]
    each = [*problem["parameters"], problem["time"]]
    rows = [
        [
            one["name"] + (", its logarithm" if one.get("log") else ""),
            one["unit"],
            *map(_number, (one["low"], one["high"], middle, width)),
        ]
        for one, middle, width in zip(
            each, scale["input_offset"], scale["input_scale"], strict=True
        )
        if one["learnt"]
    ]
    return [
        "It was trained on these ranges; outside of them it extrapolates.",
        "",
        *_table(["input", "unit", "lowest", "highest", "subtracted", "divided by"], rows),
    ]


def _fields(card: Card) -> list[str]:
    problem, scale = card["problem"], card["normalization"]
    given = problem["input_fields"]
    rows = [
        [name, unit, "given" if name in given else "predicted", _number(mean), _number(width)]
        for name, unit, mean, width in zip(
            problem["field_names"],
            problem["field_units"],
            scale["field_offset"],
            scale["field_scale"],
            strict=True,
        )
    ]
    return _table(["field", "unit", "role", "subtracted", "divided by"], rows)


def _errors(card: Card) -> Iterator[str]:
    result = card.get("validation")
    if result is None:
        yield "There were no validation members: nobody knows how wrong it is."
        return
    kinds = {"every snapshot": result["one_step"]}
    if result["rollout"] is not None:
        kinds = {"one step": result["one_step"], "rollout of the whole member": result["rollout"]}
    yield (
        f"Over {result['one_step']['spread']['members']} member(s) that were never trained on, "
        f"{result['samples']} samples."
    )
    yield ""
    rows = [
        [one["name"], name, _root(one), _infinite(one["nrmse"]),
         _percent(one["relative_l2"]) if one["mse"] is not None else INFINITE]
        for name, errors in kinds.items()
        for one in errors["fields"]
    ]  # fmt: skip
    yield from _table(["field", "", "RMS error", "of its std / %", "relative L2 / %"], rows)
    yield ""
    yield (
        "Error of each member in per cent: the mean of its fields' RMS errors, each as a share of "
        "the field's standard deviation. A member whose prediction is not finite has diverged."
    )
    yield ""
    rows = [[name, *_statistics(errors["spread"])] for name, errors in kinds.items()]
    yield from _table(["", *HEADINGS, "members", "diverged"], rows)


def _root(one: Mapping[str, Any]) -> str:
    if one["mse"] is None:
        return INFINITE
    return f"{_number(math.sqrt(one['mse']))} {shown_unit(one['unit'])}".rstrip()


def _statistics(spread: Mapping[str, Any]) -> Iterator[str]:
    fewest = {"p95": P95_MEMBERS, "p99": P99_MEMBERS}
    for name in STATISTICS:
        too_few = spread["members"] < fewest.get(name, 1)
        yield "" if too_few else _infinite(spread[name])
    yield from (str(spread[name]) for name in ("members", "diverged"))


def _regions(regions: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not regions:
        return
    names = [name for part in regions[0]["ranges"] for name in part["fields"]]
    names = list(dict.fromkeys(names)) if len(set(names)) > 1 else []
    rows = [
        [
            one["name"],
            f"{part['low']:.4g} to {part['high']:.4g} {shown_unit(one['unit'])}".rstrip(),
            str(part["members"]),
            str(part["diverged"]),
            _percent(part["mean"]),
            _percent(part["max"]),
            *(_percent(part["fields"].get(name)) for name in names),
        ]
        for one in regions
        for part in one["ranges"]
    ]
    yield "Errors of the members that have not diverged."
    yield ""
    heads = ["parameter", "range", "members", "diverged", "mean error / %", "largest / %"]
    yield from _table([*heads, *(f"{name} / %" for name in names)], rows)


def _training(card: Card) -> Iterator[str]:
    trainer, study = card["trainer"], card.get("study") or {}
    ranks = "1 rank" if trainer["ranks"] == 1 else f"{trainer['ranks']} ranks"
    facts = {
        "loss": trainer["loss"],
        "optimizer": f"{trainer['optimizer']['kind']}, lr {_number(trainer['optimizer']['lr'])}",
        "train steps": f"{card['train_steps']:,}, {ranks} x {trainer['batch']}",
        "members": study.get("members"),
        "samples": study.get("samples"),
        "samples drawn": study.get("samples_drawn"),
        "seed of the weights": _name(card.get("weights_seed")),
        "wall time / s": study.get("wall_seconds"),
    }
    yield from _list(facts)


def _cost(card: Card) -> Iterator[str]:
    query, paid = card.get("query"), (card.get("study") or {}).get("breakeven")
    facts: dict[str, Any] = {}
    if query is not None:
        facts |= {
            "a query": f"{query['snapshots']} snapshot(s), a whole member",
            f"a query alone / s ({query['device']})": query["alone_seconds"],
            f"among {query['batch']} / s": query["batched_seconds"],
        }
    if paid is not None:
        facts |= {
            "the solver takes / s": paid["member_seconds"],
            "the study took, solvers and ranks / s": paid["cost_seconds"],
            "paid back after": _queries(paid["queries"]),
            "paid back after, many at once": _queries(paid["batched_queries"]),
        }
    yield from _list(facts)


def _queries(count: int | None) -> str:
    return "never: the solver is not slower" if count is None else f"{count:,} queries"


def _study(study: Mapping[str, Any]) -> Iterator[str]:
    names = ("name", "hash", "seed", "solver", "solver_hash")
    yield from _list({name.replace("_", " "): _name(study.get(name)) for name in names})


def _list(facts: Mapping[str, Any]) -> list[str]:
    return [f"* {name}: {_value(value)}" for name, value in facts.items() if value is not None]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [heads, ["---"] * len(heads), *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def _name(value: object) -> str | None:
    """A number that counts nothing, without separators of thousands."""
    return None if value is None else str(value)


def _value(value: object) -> str:
    if isinstance(value, float):
        return _number(value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def _number(value: float) -> str:
    return f"{value:.6g}"


def shown_unit(unit: str) -> str:
    """The unit as it is printed: a quantity without dimension has none."""
    return "" if unit == "1" else unit


def _infinite(share: float | None) -> str:
    return INFINITE if share is None else _percent(share)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.3g}"
