"""While a study runs: where its keys and its token are not, who can look, and who gets in."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
import zmq.utils.z85

from pipeline.actors import cluster
from pipeline.actors.parts import bounds_of
from pipeline.errors import ConfigError
from pipeline.run import run
from pipeline.slots.shared_files import SHARED_MEMORY
from pipeline.stats.stats import StudyStats
from pipeline.stream.endpoint import StudyKeys
from pipeline.stream.intake import Bounds
from tests.small_study import NAME, small_study

pytestmark = pytest.mark.cluster

STRANGER = """
from ray._raylet import GcsClient
print(GcsClient(address="{address}").get_all_node_info())
"""


class Look:
    """Looks around twice a second, from the driver, as an observer of the study."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self.keys: list[StudyKeys] = []
        self.names: set[str] = set()
        self.found: set[str] = set()
        self.modes: dict[str, int] = {}
        self.stranger: subprocess.CompletedProcess[str] | None = None

    def __call__(self, stats: StudyStats) -> None:
        token = os.environ["RAY_AUTH_TOKEN"].encode()
        for process in psutil.Process().children(recursive=True):
            self._process(process.pid, token)
        node: Any = ray._private.worker._global_node
        folder = Path(node.get_session_dir_path())
        for path in [*folder.rglob("*"), *self._out.rglob("*")]:
            if path.is_file() and not path.is_symlink():
                self._has(path.read_bytes(), [token, *self._secrets()], str(path))
        # The nearest folder that nobody else can enter.
        self.modes["ray"] = folder.parents[1].stat().st_mode & 0o777
        self.modes["out"] = self._out.stat().st_mode & 0o777
        for path in SHARED_MEMORY.glob(f"headrace-{NAME}-{self.keys[0].study:016x}-*"):
            self.modes["slots"] = path.stat().st_mode & 0o777
        if self.stranger is None:
            self.stranger = self._enter()

    def _secrets(self) -> list[bytes]:
        """As text and as the bytes behind it; the public key of the clients opens a door, too."""
        return [
            form
            for keys in self.keys
            for key in (keys.server_secret, keys.client_secret, keys.client_public)
            for form in (key, zmq.utils.z85.decode(key))
        ]

    def _process(self, pid: int, token: bytes) -> None:
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return
        self.names.add(command.split(b"\0")[0].decode().partition(" ")[0].partition(".")[0])
        self._has(command, [token, *self._secrets()], f"cmdline of {pid}")
        self._has(environment, self._secrets(), f"environ of {pid}")
        assert Path(f"/proc/{pid}/environ").stat().st_mode & 0o077 == 0

    def _has(self, content: bytes, secrets: list[bytes], where: str) -> None:
        self.found |= {where for secret in secrets if secret in content}

    @staticmethod
    def _enter() -> subprocess.CompletedProcess[str]:
        """Try to speak to the study's Ray as another user of the node would: without its token."""
        address = ray.get_runtime_context().gcs_address
        ours = {name: each for name, each in os.environ.items() if not name.startswith("RAY_AUTH")}
        return subprocess.run(
            [sys.executable, "-c", STRANGER.format(address=address)],
            env=ours | {"HOME": "/nonexistent", "RAY_AUTH_MODE": "disabled"},
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip


def test_no_key_is_where_others_or_logs_could_show_it(
    tmp_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look, generate = Look(tmp_run), StudyKeys.generate

    def remembered(*_: Any) -> StudyKeys:
        look.keys.append(generate())
        return look.keys[-1]

    monkeypatch.setattr(StudyKeys, "generate", remembered)
    study = small_study(
        stream={"transport": "tcp"},
        ensemble={"members": 6, "validation": 0},
        reservoir={"capacity": 40, "watermark": 6},
        trainer={"ranks": 1},
    )
    result = run(study, out=tmp_run, observers=[look])
    assert result.summary.samples_inserted == 6 * 21
    assert len(look.keys) == 1
    assert {"ray::_SolverHost", "ray::_ReservoirHost"} <= look.names
    assert look.found == set()
    assert look.modes == {"ray": 0o700, "out": 0o700, "slots": 0o600}
    assert look.stranger is not None
    assert look.stranger.returncode != 0
    assert "InvalidAuthToken" in look.stranger.stderr
    assert repr(look.keys[0].client_secret) not in repr(look.keys[0])


def test_what_a_study_can_send_is_known_to_its_reservoirs() -> None:
    study = small_study(stream={"credit_bytes": 10_000_000}, ensemble={"concurrent": 3})
    assert bounds_of(study) == Bounds(members=11, samples=21, waiting_bytes=60_000_000)


def test_a_folder_for_ray_that_others_can_write_to_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("pipeline.stream.sockets.SHORT", tmp_path / "none")
    monkeypatch.setattr(cluster, "_RAY_SOCKET", "/s")
    folder = cluster.ray_folder().parent
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)
    assert cluster.ray_folder().parent == folder
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    with pytest.raises(ConfigError, match=r"need a folder of mode 700 .* RAY_TMPDIR"):
        cluster.ray_folder()
