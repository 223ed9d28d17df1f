import errno
import gc
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.slots.layout import SampleLayout
from pipeline.slots.memory import Slots, SlotsDescription, slots_bytes, slots_path
from pipeline.slots.shared_files import remove_stale, shortage

pytestmark = pytest.mark.xdist_group("stale files in /dev/shm")


LAYOUT = SampleLayout(window=2, sample_shape=(3, 5, 7), num_parameters=4)


def make(directory: Path, *, study: str = "a1", capacity: int = 11) -> Slots:
    path = slots_path(study, 0, "train", directory=directory)
    return Slots.create(path, capacity=capacity, layout=LAYOUT)


def stale(directory: Path, name: str) -> Path:
    path = directory / name
    path.write_bytes(b"left behind")
    return path


def test_a_reader_sees_what_the_owner_writes(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    with make(tmp_path) as owner:
        reader = Slots.attach(pickle.loads(pickle.dumps(owner.description)))
        assert reader.fields.shape == (11, 2, 3, 5, 7)
        assert reader.inputs.shape == (11, 4 + 2)
        assert reader.fields.dtype == np.float32
        assert reader.inputs.dtype == np.float64
        fields = rng.normal(size=owner.fields.shape).astype(np.float32)
        inputs = rng.normal(size=owner.inputs.shape)
        owner.fields[:], owner.inputs[:] = fields, inputs
        owner.members[:], owner.steps[:] = np.arange(11), np.arange(11) * -3
        owner.samples[:] = np.arange(11) + 70
        np.testing.assert_array_equal(reader.fields, fields)
        np.testing.assert_array_equal(reader.inputs, inputs)
        assert reader.members.tolist() == list(range(11))
        assert reader.samples.tolist() == list(range(70, 81))
        assert reader.steps.tolist() == list(range(0, -33, -3))
        reader.close()
        assert Path(owner.description.path).exists(), "a reader removed the owner's file"


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    with make(tmp_path) as owner:
        reader = Slots.attach(owner.description)
        for array in (reader.fields, reader.inputs, reader.members, reader.samples, reader.steps):
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 1
        reader.close()


def test_regions_are_aligned_and_fill_the_file(tmp_path: Path) -> None:
    with make(tmp_path) as owner:
        arrays = (owner.members, owner.samples, owner.steps, owner.inputs, owner.fields)
        starts = [array.ctypes.data for array in arrays]
        assert all(start % 64 == 0 for start in starts)
        ends = [start + array.nbytes for start, array in zip(starts, arrays, strict=True)]
        assert all(end <= start for end, start in zip(ends, starts[1:], strict=False))
        size = os.stat(owner.description.path).st_size
        assert size == owner.description.nbytes == slots_bytes(11, LAYOUT) == ends[-1] - starts[0]


def test_all_bytes_are_allocated_at_once(tmp_path: Path) -> None:
    with make(tmp_path, capacity=300) as owner:
        assert os.stat(owner.description.path).st_blocks * 512 >= owner.description.nbytes


def test_double_precision_slots_keep_their_precision(tmp_path: Path) -> None:
    layout = SampleLayout(window=1, sample_shape=(1, 9), num_parameters=0, dtype="float64")
    with Slots.create(tmp_path / "headrace-x", capacity=2, layout=layout) as owner:
        owner.fields[1] = 1 + 1e-12
        assert owner.fields[1, 0, 0, 0] - 1 == pytest.approx(1e-12, rel=1e-3)


def test_the_file_is_open_to_its_user_alone(tmp_path: Path) -> None:
    with make(tmp_path) as owner:
        assert os.stat(owner.description.path).st_mode & 0o777 == 0o600


def test_close_removes_the_file_and_may_be_called_twice(tmp_path: Path) -> None:
    owner = make(tmp_path)
    owner.close()
    owner.close()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError):
        Slots.attach(owner.description)


def test_arrays_outlive_close_and_the_memory_goes_with_the_last_of_them(tmp_path: Path) -> None:
    owner = make(tmp_path)
    view = owner.fields[3:5]
    view[:] = 7
    owner.close()
    assert owner.fields.shape == (0, 2, 3, 5, 7)
    assert (view == 7).all()
    maps = Path("/proc/self/maps")
    assert "headrace-a1-r0-train" in maps.read_text()
    del view
    gc.collect()
    assert "headrace-a1-r0-train" not in maps.read_text()


def test_a_file_kept_at_close_is_stale_even_while_views_are_alive(tmp_path: Path) -> None:
    owner = make(tmp_path)
    view = owner.fields[:1]
    owner.close(unlink=False)
    assert remove_stale(directory=tmp_path) == ["headrace-a1-r0-train"]
    assert view.shape == (1, 2, 3, 5, 7)


def test_populate_changes_no_byte(tmp_path: Path) -> None:
    with make(tmp_path, capacity=50) as owner:
        owner.fields[:] = 3
        owner.populate()
        assert (owner.fields == 3).all()
        reader = Slots.attach(owner.description)
        assert not reader.populate()
        reader.close()
    assert not owner.populate()


def test_stale_files_are_removed_and_living_or_foreign_ones_kept(tmp_path: Path) -> None:
    stale(tmp_path, "headrace-old-r0-train")
    stale(tmp_path, "headrace-old-r1-validation")
    stale(tmp_path, "somebody-else")
    (tmp_path / "headrace-folder").mkdir()
    (tmp_path / "headrace-link").symlink_to(tmp_path / "somebody-else")
    with make(tmp_path):
        removed = remove_stale(directory=tmp_path)
        assert removed == ["headrace-old-r0-train", "headrace-old-r1-validation"]
        kept = sorted(path.name for path in tmp_path.iterdir())
        assert kept == ["headrace-a1-r0-train", "headrace-folder", "headrace-link", "somebody-else"]


def test_only_files_with_the_prefix_are_looked_at(tmp_path: Path) -> None:
    stale(tmp_path, "headrace-old-r0-train")
    stale(tmp_path, "headrace-new-r0-train")
    assert remove_stale("headrace-old", directory=tmp_path) == ["headrace-old-r0-train"]


def test_a_file_of_a_killed_owner_is_stale(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from pipeline.slots.layout import SampleLayout\n"
        "from pipeline.slots.memory import Slots\n"
        "layout = SampleLayout(window=1, sample_shape=(1, 9), num_parameters=2)\n"
        "slots = Slots.create(Path(sys.argv[1]) / 'headrace-dead', capacity=4, layout=layout)\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert remove_stale(directory=tmp_path) == [], "removed while its owner lives"
        process.kill()
    assert remove_stale(directory=tmp_path) == ["headrace-dead"]


def test_a_stale_file_of_the_same_name_is_replaced(tmp_path: Path) -> None:
    stale(tmp_path, "headrace-a1-r0-train")
    with make(tmp_path) as owner:
        assert os.stat(owner.description.path).st_size == owner.description.nbytes


def test_a_living_file_of_the_same_name_is_refused(tmp_path: Path) -> None:
    with make(tmp_path) as owner:
        owner.members[0] = 5
        with pytest.raises(ConfigError, match="headrace-a1-r0-train belongs to a living process"):
            make(tmp_path)
        assert owner.members[0] == 5


def test_slots_that_do_not_fit_are_refused_with_sizes_and_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        make(tmp_path, capacity=10**13)
    (line,) = refused.value.problems
    needed = slots_bytes(10**13, LAYOUT) / 1e9
    assert line.startswith(f"headrace-a1-r0-train: {needed:.3f} GB of shared memory needed, but ")
    assert "Lower reservoir.capacity" in line
    assert list(tmp_path.iterdir()) == []


def test_memory_that_is_gone_at_the_last_moment_is_refused_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(ConfigError, match=r"could not be allocated .* No space left on device"):
        make(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_unexpected_failure_to_allocate_is_not_explained_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(fd: int, offset: int, size: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "posix_fallocate", broken)
    with pytest.raises(OSError, match="Input/output error"):
        make(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_shortage_is_none_where_it_fits(tmp_path: Path) -> None:
    assert shortage(1000, directory=tmp_path) is None
    assert "1000000000.000 GB of shared memory needed" in str(shortage(10**18, directory=tmp_path))


def test_a_file_of_another_size_is_not_attached(tmp_path: Path) -> None:
    with make(tmp_path) as owner:
        path = owner.description.path
        wrong = SlotsDescription(path=path, capacity=12, layout=LAYOUT)
        with pytest.raises(ValueError, match="it belongs to another study"):
            Slots.attach(wrong)


def test_no_slots_at_all_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="capacity=0 is below 1 slot"):
        make(tmp_path, capacity=0)
    assert list(tmp_path.iterdir()) == []


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    def descriptors() -> list[str]:
        """Return what is open in `tmp_path` alone: another test's may close in the meantime."""
        links = Path("/proc/self/fd").iterdir()
        return [str(file) for file in map(os.path.realpath, links) if str(tmp_path) in file]

    assert descriptors() == []
    with (tmp_path / "seen").open("wb"):
        assert descriptors() == [str(tmp_path / "seen")]
    owner = make(tmp_path)
    reader = Slots.attach(owner.description)
    with pytest.raises(ConfigError):
        make(tmp_path)
    remove_stale(directory=tmp_path)
    reader.close()
    owner.close()
    gc.collect()
    assert descriptors() == []
