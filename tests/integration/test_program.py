"""Real foreign programs: C compiled here, a petsc4py script, and impostors that misbehave."""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import petsc4py
import psutil
import pytest

from solvers.base import Snapshot, SolverFailed, SolverKilled
from solvers.configs.program import ProgramConfig
from solvers.program.solver import Program

pytestmark = pytest.mark.petsc

PROGRAMS = Path(__file__).with_name("programs")
PYTHON = shlex.quote(sys.executable)
Build = Callable[[str], Path]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory, unavailable: Callable[[str], None]) -> Build:
    """Compiles ``programs/NAME.c`` as anybody would."""
    mpicc = Path(sys.executable).with_name("mpicc")
    if not mpicc.exists():
        unavailable(f"no mpicc beside {sys.executable}: pip install mpich")
    folder = tmp_path_factory.mktemp("built")
    where = petsc4py.get_config()
    root, arch = where["PETSC_DIR"], f"{where['PETSC_DIR']}/{where['PETSC_ARCH']}"

    def build(name: str) -> Path:
        program = folder / name
        if not program.exists():
            done = subprocess.run(
                [mpicc, PROGRAMS / f"{name}.c", f"-I{root}/include", f"-I{arch}/include",
                 f"-L{arch}/lib", f"-Wl,-rpath,{arch}/lib", "-lpetsc", "-lm", "-o", program],
                capture_output=True, text=True, timeout=60,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
        return program

    return build


@contextlib.contextmanager
def solver(config: ProgramConfig) -> Iterator[Program]:
    made = Program(config)
    try:
        yield made
    finally:
        made.close()


def member(config: ProgramConfig, **values: float) -> list[Snapshot]:
    with solver(config) as made:
        return list(made.run(values, None))


def failure(config: ProgramConfig, **values: float) -> tuple[list[Snapshot], str]:
    """What came before the failure, and what it says."""
    with solver(config) as made:
        came: list[Snapshot] = []
        with pytest.raises(SolverFailed) as caught:
            came.extend(made.run(values, None))
        return came, str(caught.value)


@pytest.fixture
def transient(build: Build, tmp_path: Path) -> Callable[..., ProgramConfig]:
    def made(**changed: object) -> ProgramConfig:
        return ProgramConfig.model_validate(
            {
                "kind": "program",
                "command": f"./{build('transient').name} -ts_adapt_type none",
                "root": str(build("transient").parent),
                "options": {"diffusivity": "-nu {value}"},
                "components": {"u": "K", "v": "1"},
                "grid": [13, 20],
                "steps": 10,
                "dt": 0.05,
                "folder": str(tmp_path / "members"),
            }
            | changed
        )

    return made


@pytest.fixture
def steady(build: Build, tmp_path: Path) -> Callable[..., ProgramConfig]:
    def made(**changed: object) -> ProgramConfig:
        return ProgramConfig.model_validate(
            {
                "kind": "program",
                "command": str(build("steady")),
                "options": {"lambda": "-lambda {value}"},
                "stream": "snes_view_solution",
                "prefix": "bratu_",
                "components": {"u": "1"},
                "grid": [8, 11],
                "steps": 0,
                "folder": str(tmp_path / "members"),
                "petsc_options": "-bratu_snes_rtol 1e-12",
            }
            | changed
        )

    return made


@pytest.fixture
def impostor(tmp_path: Path) -> Callable[..., ProgramConfig]:
    def made(deed: str, **changed: object) -> ProgramConfig:
        return ProgramConfig.model_validate(
            {
                "kind": "program",
                "command": f"{PYTHON} -I -S {PROGRAMS / 'impostor.py'} {deed}",
                "options": {},
                "components": {"u": "1"},
                "grid": [2, 3],
                "steps": 10,
                "dt": 0.1,
                "folder": str(tmp_path / "members"),
                "step_timeout": 20.0,
            }
            | changed
        )

    return made


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path) -> Iterator[None]:
    """After every test: no working folder, and no process below this one."""
    processes = set(psutil.Process().children(recursive=True))
    yield
    assert list((tmp_path / "members").glob("*")) == []
    assert set(psutil.Process().children(recursive=True)) <= processes


# Transient: TS


@pytest.mark.parametrize("mpi_ranks", [1, 2, 3])
def test_every_step_of_a_ts_comes_with_its_time_in_the_announced_layout(
    transient: Callable[..., ProgramConfig], mpi_ranks: int
) -> None:
    nu = 0.7
    snapshots = member(transient(mpi_ranks=mpi_ranks), diffusivity=nu)
    assert [s.step for s in snapshots] == list(range(11))
    np.testing.assert_allclose([s.time for s in snapshots], np.arange(11) * 0.05, rtol=1e-14)
    j, i = np.mgrid[:13, :20]
    mode = np.sin(2 * np.pi * i / 20) * np.cos(2 * np.pi * j / 13)
    rate = 4 * nu * (np.sin(np.pi / 20) ** 2 + np.sin(np.pi / 13) ** 2)
    for snapshot in snapshots:
        assert snapshot.fields.dtype == np.float32
        assert snapshot.fields.flags.c_contiguous
        u, v = snapshot.fields
        # RK3 with these steps: (nu dt)^4 / 24 a step
        np.testing.assert_allclose(u, mode * np.exp(-rate * snapshot.time), atol=2e-6)
        np.testing.assert_allclose(v, (i + 100 * j) * np.exp(-nu * snapshot.time), rtol=2e-6)


def test_every_nth_step(transient: Callable[..., ProgramConfig]) -> None:
    all_steps = member(transient(), diffusivity=0.7)
    some = member(transient(every=4), diffusivity=0.7)
    assert [s.step for s in some] == [0, 1, 2]
    for snapshot, same in zip(some, all_steps[::4], strict=True):
        assert snapshot.time == same.time
        np.testing.assert_array_equal(snapshot.fields, same.fields)


def test_another_ordering_reads_the_same_numbers_otherwise(
    transient: Callable[..., ProgramConfig],
) -> None:
    (first, *_) = member(transient(), diffusivity=0.7)
    flat = np.moveaxis(first.fields, 0, -1).ravel()
    (blocked, *_) = member(transient(ordering="blocked"), diffusivity=0.7)
    np.testing.assert_array_equal(blocked.fields.ravel(), flat)
    (turned, *_) = member(transient(ordering="xyc"), diffusivity=0.7)
    np.testing.assert_array_equal(turned.fields.transpose(2, 1, 0).ravel(), flat)


def test_an_options_file_does_the_same(transient: Callable[..., ProgramConfig]) -> None:
    by_command, by_file = (
        member(transient(options_by=way), diffusivity=0.3) for way in ("command", "file")
    )
    for a, b in zip(by_command, by_file, strict=True):
        np.testing.assert_array_equal(a.fields, b.fields)


def test_adaptive_steps_have_their_own_times(transient: Callable[..., ProgramConfig]) -> None:
    config = transient(command="./transient -ts_adapt_type basic -ts_rtol 1e-9", steps=1000)
    times = np.array([s.time for s in member(config, diffusivity=0.7)])
    assert times[-1] == 0.5
    assert np.ptp(np.diff(times)) > 1e-3


def test_the_same_parameters_give_the_same_snapshots_in_any_member(
    transient: Callable[..., ProgramConfig],
) -> None:
    with solver(transient()) as made:
        first = list(made.run({"diffusivity": 0.7}, None))
        given_up = made.run({"diffusivity": 0.2}, None)
        next(given_up)
        again = list(made.run({"diffusivity": 0.7}, None))
        with pytest.raises(RuntimeError, match="stopped at solver step 1"):
            next(given_up)
    for a, b in zip(first, again, strict=True):
        assert (a.step, a.time) == (b.step, b.time)
        np.testing.assert_array_equal(a.fields, b.fields)


def test_the_receiver_owns_the_array(transient: Callable[..., ProgramConfig]) -> None:
    expected = member(transient(), diffusivity=0.7)
    with solver(transient()) as made:
        for snapshot, untouched in zip(made.run({"diffusivity": 0.7}, None), expected, strict=True):
            np.testing.assert_array_equal(snapshot.fields, untouched.fields)
            snapshot.fields[:] = np.nan


@pytest.mark.parametrize("mpi_ranks", [1, 2])
def test_petscs_own_reason_is_shown(
    transient: Callable[..., ProgramConfig], mpi_ranks: int
) -> None:
    came, text = failure(
        transient(petsc_options="-ts_type foo", mpi_ranks=mpi_ranks), diffusivity=0.7
    )
    assert came == []
    assert "ended with status 86" in text
    assert "Unknown TS type: foo" in text
    assert "TSSetFromOptions()" in text


def test_a_ts_that_diverges_fails_with_its_reason(
    transient: Callable[..., ProgramConfig],
) -> None:
    wild = transient(command="./transient -ts_adapt_type none", petsc_options="-ts_dt 0.01")
    came, text = failure(wild, diffusivity=1e30)
    assert 1 <= len(came) < 11
    assert all(np.isfinite(s.fields).all() for s in came)
    assert "not finite" in text


def test_a_grid_that_is_not_the_programs_is_refused(
    transient: Callable[..., ProgramConfig],
) -> None:
    came, text = failure(transient(grid=[13, 21]), diffusivity=0.7)
    assert came == []
    assert "length 520, but grid and components make 546" in text


def test_more_steps_than_announced_fail_after_those(
    transient: Callable[..., ProgramConfig],
) -> None:
    came, text = failure(transient(steps=7), diffusivity=0.7)
    assert len(came) == 8
    assert "more than 8 vectors" in text


# Steady: SNES, KSP, vec_view


def residual(u: np.ndarray, value: float) -> float:
    hy, hx = 1 / 7, 1 / 10
    inner = u[1:-1, 1:-1]
    second = (2 * inner - u[1:-1, :-2] - u[1:-1, 2:]) / hx**2
    second += (2 * inner - u[:-2, 1:-1] - u[2:, 1:-1]) / hy**2
    return float(np.abs(second - value * np.exp(inner)).max())


@pytest.mark.parametrize("mpi_ranks", [1, 2])
def test_the_solution_of_a_nonlinear_solve(
    steady: Callable[..., ProgramConfig], mpi_ranks: int
) -> None:
    (only,) = member(steady(mpi_ranks=mpi_ranks), **{"lambda": 5.0})
    assert (only.step, only.time) == (0, 0.0)
    u = only.fields[0].astype(np.float64)
    assert 0.5 < u.max() < 1.5
    assert residual(u, 5.0) < 1e-4  # float32 of u, over the square of the spacing
    assert not u[0].any()
    assert not u[:, 0].any()


@pytest.mark.parametrize("mpi_ranks", [1, 2])
def test_a_nonlinear_solve_that_does_not_converge_is_never_streamed(
    steady: Callable[..., ProgramConfig], mpi_ranks: int
) -> None:
    with solver(steady(mpi_ranks=mpi_ranks)) as made:
        with pytest.raises(SolverFailed, match=r"did not converge due to DIVERGED_\w+"):
            list(made.run({"lambda": 40.0}, None))
        assert len(list(made.run({"lambda": 1.0}, None))) == 1  # that member alone


def test_a_prefix_that_the_program_does_not_use_is_told(
    steady: Callable[..., ProgramConfig],
) -> None:
    came, text = failure(steady(prefix="other_", petsc_options=""), **{"lambda": 1.0})
    assert came == []
    assert "ended without a vector: it did not look at -other_snes_view_solution" in text


@pytest.mark.parametrize("stream", ["ksp_view_solution", "vec_view"])
def test_a_petsc4py_script(stream: str, tmp_path: Path) -> None:
    config = ProgramConfig.model_validate(
        {
            "command": f"{PYTHON} {PROGRAMS / 'script.py'}",
            "options": {"scale": "-scale {value}"},
            "stream": stream,
            "components": {"x": "1"},
            "grid": [6],
            "steps": 1 if stream == "ksp_view_solution" else 20,
            "folder": str(tmp_path / "members"),
        }
    )
    snapshots = member(config, scale=3.0)
    expected = 3.0 * np.arange(1, 7) / 2.0 ** np.arange(6)
    last = snapshots[-1].fields[0]
    np.testing.assert_allclose(last, 2 * expected, rtol=1e-4)
    assert [s.time for s in snapshots] == [0.01 * s.step for s in snapshots]
    assert len(snapshots) >= 2


def test_a_script_that_raises_shows_its_traceback(tmp_path: Path) -> None:
    script = tmp_path / "broken.py"
    script.write_text("def viscosity():\n    return 1 / 0\nviscosity()\n", encoding="utf-8")
    config = ProgramConfig(
        command=f"{PYTHON} ./broken.py", root=str(tmp_path), options={}, components={"x": "1"},
        grid=(6,), steps=1, folder="members",
    )  # fmt: skip
    _, text = failure(config)
    assert "ended with status 1" in text
    assert "line 2, in viscosity" in text
    assert "ZeroDivisionError" in text


# Streams and programs that misbehave


@pytest.mark.parametrize(
    ("deed", "whole", "message"),
    [
        ("truncated", 3, "the stream ends inside a record, after 3 whole vectors"),
        ("crash", 3, r"ended with status 134 \(signal 6\)"),
        ("malformed", 3, "before vector 3 the stream has b'Hello, this is n' where a time"),
        ("endless", 11, "more than 11 vectors"),
        ("huge", 3, "length 2147483647"),
        ("nan", 3, "not finite in vector 3: 6 of 6 values"),
        ("overflow", 3, "beyond float32"),
        ("back", 3, "time 0.1 s after 0.2 s"),
        ("unknown", 3, "no deed 'unknown'"),
    ],
)
def test_a_bad_stream_ends_in_the_failure_of_that_member_alone(
    impostor: Callable[..., ProgramConfig], deed: str, whole: int, message: str
) -> None:
    came, text = failure(impostor(deed))
    assert len(came) == whole
    assert re.search(message, text), text
    assert len(member(impostor("good"))) == 3


@pytest.mark.parametrize("deed", ["stall", "drip", "chatter"])
def test_a_program_that_completes_no_vector_is_given_up(
    impostor: Callable[..., ProgramConfig], deed: str
) -> None:
    started = time.monotonic()
    came, text = failure(impostor(deed, step_timeout=3.0))
    assert time.monotonic() - started < 60.0
    assert len(came) == 3
    assert "step_timeout=3 s" in text


def test_what_a_program_says_before_its_crash_is_shown(
    impostor: Callable[..., ProgramConfig],
) -> None:
    _, text = failure(impostor("crash"))
    assert "program failed after 3 vectors, the last of time 0.2 s" in text
    assert text.endswith("Its last lines:\n  out of luck")


def test_a_step_that_is_repeated_is_not_yielded_again(
    impostor: Callable[..., ProgramConfig],
) -> None:
    assert [s.fields[0, 0, 0] for s in member(impostor("repeat"))] == [0.0, 1.0, 2.0, 3.0]


def test_a_slow_receiver_does_not_use_up_the_programs_time(
    impostor: Callable[..., ProgramConfig],
) -> None:
    with solver(impostor("good", step_timeout=3.0)) as made:
        snapshots: list[Snapshot] = []
        for snapshot in made.run({}, None):
            time.sleep(3.2 if not snapshots else 0.0)
            snapshots.append(snapshot)
    assert len(snapshots) == 3


def test_every_member_has_a_working_folder_of_its_own(
    impostor: Callable[..., ProgramConfig], tmp_path: Path
) -> None:
    kept = str(tmp_path / "kept")
    for _ in range(2):
        member(impostor("gift", keep_folders=True, folder=kept))
    folders = sorted((tmp_path / "kept").iterdir())
    assert len(folders) == 2
    for folder in folders:
        assert (folder / "made_here").read_text(encoding="utf-8") == str(folder)
        assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"command": "./nowhere"}, r"solver\.command: no program .*nowhere"),
        ({"mpi_ranks": 2, "launcher": "nompi -n {mpi_ranks}"}, r"solver\.launcher: no program"),
    ],
)
def test_a_program_that_is_not_there_is_refused(
    impostor: Callable[..., ProgramConfig], changed: dict[str, object], message: str
) -> None:
    with solver(impostor("good", **changed)) as made, pytest.raises(ValueError, match=message):
        made.run({}, None)


def test_it_runs_on_one_rank_and_takes_exactly_its_parameters(
    transient: Callable[..., ProgramConfig],
) -> None:
    class Two:
        size = 2

    with solver(transient()) as made:
        with pytest.raises(ValueError, match=r"ensemble\.mpi_ranks=2: a program starts its own"):
            made.run({"diffusivity": 1.0}, Two())
        with pytest.raises(ValueError, match=r"missing: \['diffusivity'\]"):
            made.run({}, None)
        with pytest.raises(SolverFailed, match="diffusivity=nan"):
            made.run({"diffusivity": np.nan}, None)


# Nothing is left


def below(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def segments(processes: list[psutil.Process]) -> set[Path]:
    """MPICH's shared memory that they have mapped; others on this machine have theirs."""
    paths = {Path(each.path) for process in processes for each in process.memory_maps()}
    return {path for path in paths if path.name.startswith("mpich_shm_")}


def assert_gone(processes: list[psutil.Process], *, seconds: float = 10.0) -> None:
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    assert alive == []


def test_a_member_given_up_half_way_ends_its_program(
    impostor: Callable[..., ProgramConfig],
) -> None:
    with solver(impostor("stall", mpi_ranks=2)) as made:
        snapshots = made.run({}, None)
        next(snapshots)
        processes = below(os.getpid())
        assert len(processes) >= 4
        snapshots.close()  # type: ignore[attr-defined]  # a generator
        assert_gone(processes, seconds=1.0)


def test_what_a_program_leaves_running_ends_with_it(
    impostor: Callable[..., ProgramConfig],
) -> None:
    assert len(member(impostor("daemon"))) == 3
    assert not [
        p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", "611"]
    ]


@pytest.mark.parametrize("victim", ["leash", "program"])
def test_a_leash_or_program_that_is_killed_fails_the_member(
    impostor: Callable[..., ProgramConfig], victim: str
) -> None:
    with solver(impostor("stall", mpi_ranks=2)) as made:
        snapshots = made.run({}, None)
        next(snapshots)
        (leash,) = psutil.Process().children()
        processes = below(os.getpid())
        (leash if victim == "leash" else leash.children()[0]).send_signal(signal.SIGKILL)
        message = "together with what watches over it" if victim == "leash" else "signal 9"
        with pytest.raises(SolverKilled, match=message):
            list(snapshots)
        assert_gone(processes)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_orphan_when_headraces_own_process_dies(
    transient: Callable[..., ProgramConfig], project: Path, number: signal.Signals
) -> None:
    # So many small steps that it is still running; two ranks, so that MPICH has shared memory.
    config = transient(
        mpi_ranks=2, steps=10**9, petsc_options="-ts_max_time 1e9 -ts_max_steps 1000000000"
    )
    code = (
        "import sys; from solvers.program.solver import Program, ProgramConfig;"
        "made = Program(ProgramConfig.model_validate_json(sys.argv[1]));"
        "[print(s.step, flush=True) for s in made.run({'diffusivity': 0.1}, None)]"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, config.model_dump_json()],
        cwd=project, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "0\n"
        processes = below(process.pid)
        assert len(processes) >= 5  # leash, mpiexec, its proxy, ranks
        shared = segments(processes)
        assert shared
        process.send_signal(number)
        process.stdout.close()
    assert_gone(processes)
    assert not [path for path in shared if path.exists()]


@pytest.mark.parametrize("way", ["stop", "crash"])
def test_no_shared_memory_of_mpich_is_left(
    impostor: Callable[..., ProgramConfig], transient: Callable[..., ProgramConfig], way: str
) -> None:
    if way == "crash":
        path = Path(f"/dev/shm/mpich_shm_headrace{os.getpid()}")
        failure(impostor(f"segment {path}"))
        assert not path.exists()
        return
    endless = transient(mpi_ranks=2, steps=10**9, petsc_options="-ts_max_time 1e9")
    with solver(endless) as made:
        running = made.run({"diffusivity": 0.1}, None)
        next(running)
        shared = segments(below(os.getpid()))
        assert shared
        assert all(path.exists() for path in shared)
    assert not [path for path in shared if path.exists()]
