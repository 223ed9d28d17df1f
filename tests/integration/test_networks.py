"""Networks other than the default, trained by a whole study and read back from its export."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.run import run
from tests.small_study import small_study
from trainers.surrogate.export import load_surrogate

pytestmark = [pytest.mark.cluster, pytest.mark.studies]

OWN = Path(__file__).parents[1] / "contract" / "own_network.py"


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(
            {"kind": "fno", "n_modes": [4, 6], "channels": 4, "layers": 2, "conditioning": "film"},
            id="fno",
        ),
        pytest.param({"path": str(OWN), "class": "Scaled", "start": 0.5}, id="own"),
    ],
)
def test_a_study_trains_and_exports_it(model: dict[str, Any], tmp_run: Path) -> None:
    study = small_study(trainer={"model": model}, stream={"input_fields": ["temperature"]})
    result = run(study, out=tmp_run, source_text="")
    assert result.summary.members_failed == 0
    surrogate = load_surrogate(tmp_run / "model")
    given = {"initial_temperature": np.full((10, 14), 300.0)}
    first, second = (
        surrogate([300.0, 200.0, west, 300.0, 300.0], 0.1, given) for west in (100, 400)
    )
    assert first.shape == (1, 10, 14)
    assert np.isfinite(first).all()
    assert not np.array_equal(first, second)
