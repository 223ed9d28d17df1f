"""The kinds of networks as text: what each is, its options, and how many weights it has."""

import json
from typing import Final

NUM_INPUTS: Final = 6  # of the example that weights are counted for
FIELD_SHAPE: Final = (2, 64, 64)


def networks() -> str:
    """What stands under ``trainer.model``, for a person to read."""
    from trainers.models.registry import (  # brings torch
        MODELS,
        build_model,
        count_weights,
        describe_models,
    )

    points = " x ".join(map(str, FIELD_SHAPE[1:]))
    fields = f"{FIELD_SHAPE[0]} fields of {points} points"
    lines = [
        "Networks (under `trainer:`, `model: {kind: ...}`). Weights are those of the defaults,",
        f"from {NUM_INPUTS - 1} parameters and time to {fields}.",
    ]
    for kind, summary, options in describe_models():
        weights = ""
        if all(option.default is not None for option in options):
            network = build_model(
                MODELS[kind].config.model_validate({}),
                num_inputs=NUM_INPUTS,
                field_shape=FIELD_SHAPE,
            )
            weights = f"{count_weights(network):,} weights"
        lines += ["", f"{kind}: {summary}", f"  {weights}" if weights else "  your weights"]
        width = max(len(option.name) for option in options)
        shown = [_shown(option.default) for option in options]
        columns = max(map(len, shown))
        lines += [
            f"  {option.name:<{width}}  {default:<{columns}}  {option.description}"
            for option, default in zip(options, shown, strict=True)
        ]
    return "\n".join(lines)


def _shown(default: object) -> str:
    """A default as it is written in a study."""
    return "required" if default is None else json.dumps(default).strip('"')
