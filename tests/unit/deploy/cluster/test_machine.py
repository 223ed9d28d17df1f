from pathlib import Path

import pytest

from deploy.cluster import machine


@pytest.fixture
def devices(tmp_path: Path) -> Path:
    for name in ("nvidia0", "nvidia1", "nvidia10", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("visible", "count"),
    [
        (None, 3),
        ("0,1", 2),
        ("0,1,10,11,12", 3),
        ("", 0),
        ("-1", 0),
        ("0,-1,1", 1),
        ("GPU-5f3e,GPU-77aa", 2),
        (" 1 , 0 ", 2),
    ],
)
def test_gpus_that_are_hidden_do_not_count(visible: str | None, count: int, devices: Path) -> None:
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert machine.gpus(environment, devices) == count


def tool(folder: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "nvidia-smi"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_without_device_files_the_driver_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool(tmp_path, 'echo "GPU 0: H200 (UUID: x)"; echo "GPU 1: H200 (UUID: y)"', monkeypatch)
    assert machine.gpus({}, tmp_path) == 2
    assert machine.gpus({"CUDA_VISIBLE_DEVICES": "1"}, tmp_path) == 1


def test_a_driver_that_does_not_answer_means_no_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool(tmp_path, 'echo "NVIDIA-SMI has failed"; exit 9', monkeypatch)
    assert machine.gpus({}, tmp_path) == 0


def test_no_driver_means_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.gpus({}, tmp_path) == 0


def test_free_shared_memory_is_what_the_folder_has(tmp_path: Path) -> None:
    free = machine.shared_memory_free(tmp_path)
    (tmp_path / "taken").write_bytes(b"x" * (32 << 20))
    assert 0 < machine.shared_memory_free(tmp_path) <= free
    assert machine.shared_memory_free(tmp_path / "nowhere") == 0


def test_more_ranks_than_gpus_are_refused() -> None:
    room: dict[str, int] = {"capacity": 5, "slots_bytes": 10, "shared_memory_free": 100}
    assert machine.problems(ranks=4, device="cuda", gpus=4, **room) == []
    assert machine.problems(ranks=4, device="auto", gpus=0, **room) == []
    (line,) = machine.problems(ranks=4, device="cuda", gpus=2, **room)
    assert line == (
        "trainer.ranks=4: with trainer.device=cuda every rank needs a GPU, and this machine has 2. "
        "Lower trainer.ranks, or set trainer.device to cpu"
    )


def test_slots_that_do_not_fit_into_shared_memory_are_refused() -> None:
    memory = {"slots_bytes": 300 << 20, "shared_memory_free": 64 << 20}
    (line,) = machine.problems(ranks=2, device="cpu", gpus=0, capacity=6000, **memory)
    for word in ("reservoir.capacity=6000", "2 ranks", "300 MiB", "64 MiB free", "Lower"):
        assert word in line


def test_a_record_that_does_not_fit_on_the_disk_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "not-there-yet"
    assert machine.record_problems(0, folder) == []
    assert machine.record_problems(1 << 20, folder) == []
    (line,) = machine.record_problems(1 << 62, folder)
    assert line.startswith("record.fraction: the record takes up to 4,294,967,296.0 GiB, but")
    assert f"{tmp_path} has" in line
