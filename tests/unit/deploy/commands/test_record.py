import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import pytest
import xarray as xr
from typer.testing import CliRunner

from deploy.cli import app
from deploy.commands import record as records
from pipeline.errors import ConfigError
from pipeline.record.reader import open_record, write_index
from tests.record_rig import add, check_content, open_rank, pairs_in

PAIRS = [(member, number) for member in (2, 0, 1) for number in range(4)]
SETTINGS = {"what": "inserted", "fraction": 1.0, "every": 1, "compression": "none"}


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    record = open_rank(tmp_path, attributes={"record": SETTINGS})
    add(record, PAIRS)
    record.close(complete=True)
    write_index(tmp_path / "record.zarr")
    return tmp_path


def headrace(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if not isinstance(done.exception, SystemExit | None):
        raise done.exception
    return done.exit_code, done.output


def test_info_says_what_is_in_it(run_dir: Path) -> None:
    code, text = headrace("record", "info", run_dir)
    assert code == 0
    assert "12 samples of 3 members, complete" in text
    assert re.search(r"temperature +float32 +\(sample 12, snapshot 2, y 3, x 5\) \[K\]", text)
    assert re.search(r"power +float64 +\(sample 12\) \[W\] the power", text)


def test_stats_are_those_of_all_values(run_dir: Path, tmp_path: Path) -> None:
    picture = tmp_path / "coverage.png"
    code, text = headrace("record", "stats", run_dir, "--coverage", picture)
    assert code == 0
    values = open_record(run_dir)["temperature"].values.astype(float)
    line = next(line for line in text.splitlines() if line.startswith("temperature [K]"))
    said = [float(word) for word in line.split()[2:]]
    wanted = [values.mean(), values.std(), values.min(), values.max()]
    assert said == pytest.approx(wanted, rel=1e-5)
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("ending", ["zarr", "nc", "h5"])
def test_an_export_holds_every_sample_in_order(
    run_dir: Path, tmp_path: Path, ending: str, unavailable: Callable[[str], NoReturn]
) -> None:
    if ending != "zarr" and find_spec("h5netcdf") is None:
        unavailable("h5netcdf is not installed: tools/requirements-netcdf.txt")
    out = tmp_path / f"out.{ending}"
    code, text = headrace("record", "export", run_dir, out)
    assert (code, text) == (0, f"wrote {out}\n")
    opened: Any = xr.open_zarr(out) if ending == "zarr" else xr.open_dataset(
        out, engine="h5netcdf"
    )  # fmt: skip
    with opened as dataset:
        assert pairs_in(dataset) == sorted(PAIRS)
        check_content(dataset)
        assert dataset["temperature"].attrs["units"] == "K"
    code, text = headrace("record", "export", run_dir, out)
    assert code == 2
    assert "exists, and is not overwritten" in text


def test_without_h5netcdf_an_export_says_what_to_install(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"need h5netcdf, .*pip install h5netcdf"):
        records.export(run_dir, tmp_path / "out.nc")


def test_other_endings_and_folders_are_refused(run_dir: Path, tmp_path: Path) -> None:
    code, text = headrace("record", "export", run_dir, tmp_path / "out.csv")
    assert (code, "Name it *.zarr, *.nc or *.h5" in text) == (2, True)
    code, text = headrace("record", "export", run_dir, tmp_path / "no" / "out.zarr")
    assert (code, "its folder does not exist" in text) == (2, True)


def test_a_folder_without_a_record_is_refused(tmp_path: Path) -> None:
    code, text = headrace("record", "info", tmp_path)
    assert (code, "there is no record in it" in text) == (2, True)


def test_a_record_of_another_version_is_refused(run_dir: Path) -> None:
    file = run_dir / "record.zarr" / "rank0" / "zarr.json"
    file.write_text(file.read_text().replace('"headrace_record": 2', '"headrace_record": 7'))
    code, text = headrace("record", "info", run_dir)
    assert (code, "record version 7, this headrace has 2" in text) == (2, True)


def test_nothing_to_compute_from_no_sample(tmp_path: Path) -> None:
    open_rank(tmp_path, attributes={"record": SETTINGS}).close()
    code, text = headrace("record", "stats", tmp_path)
    assert (code, "holds no sample yet" in text) == (2, True)


def test_one_set_of_parameters_is_no_plot(tmp_path: Path) -> None:
    record = open_rank(tmp_path, attributes={"record": SETTINGS})
    add(record, [(3, 0), (3, 1)])
    record.close()
    with pytest.raises(ConfigError, match="no parameter differs"):
        records.coverage(tmp_path, tmp_path / "coverage.png")


def test_the_page_works_as_it_is_written(
    run_dir: Path,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = (project / "docs" / "record.md").read_text()
    (run_dir / "runs").mkdir()
    (run_dir / "runs" / "latest").symlink_to(run_dir)
    monkeypatch.chdir(run_dir)
    names: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(code, names)
    assert names["samples"].sizes["sample"] == names["part"].sizes["sample"] == 12
    assert names["hottest"].shape == (12, 2)
    assert names["first"].sizes["sample"] == 4
    assert "temperature" in capsys.readouterr().out
    commands = re.findall(r"^headrace (record .*?)(?:#.*)?$", page, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        code, text = headrace(*command.split())
        assert code == 0, text
