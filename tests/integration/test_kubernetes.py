"""k8s/: built by the real kustomize, checked against KubeRay's own definitions."""

import copy
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml

from pipeline.study.config import StudyConfig
from pipeline.study.load import parse
from tests.ops import crd

Resource = dict[str, Any]
OVERLAYS = ("base", "overlays/gpu")


@pytest.fixture(scope="module")
def built(project: Path, require_tool: Callable[..., None]) -> dict[str, dict[str, Resource]]:
    """Overlay -> kind -> resource."""
    require_tool("kubectl")
    return {name: _build(project / "k8s" / name) for name in OVERLAYS}


def _build(folder: Path) -> dict[str, Resource]:
    done = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    resources = list(yaml.safe_load_all(done.stdout))
    kinds = {one["kind"]: one for one in resources}
    assert len(kinds) == len(resources)
    return kinds


@pytest.fixture(scope="module")
def schema(project: Path) -> crd.Schema:
    path = project.parent / "shared" / "kuberay" / "ray.io_rayjobs.yaml.xz"
    if not path.exists():
        pytest.skip(f"KubeRay's definitions are not here: {path}")
    return crd.schema_of(crd.load(path), "v1")


def _pods(job: Resource) -> dict[str, Resource]:
    """Group -> pod template."""
    cluster = job["spec"]["rayClusterSpec"]
    groups = {one["groupName"]: one["template"] for one in cluster["workerGroupSpecs"]}
    return {
        "submitter": job["spec"]["submitterPodTemplate"],
        "head": cluster["headGroupSpec"]["template"],
        **groups,
    }


def _study(resources: dict[str, Resource]) -> StudyConfig:
    return parse(yaml.safe_load(resources["ConfigMap"]["data"]["study.yaml"]))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kuberay_accepts_the_job(
    built: dict[str, dict[str, Resource]], schema: crd.Schema, overlay: str
) -> None:
    assert crd.problems(schema, built[overlay]["RayJob"]) == []


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        (("spec", "entrypont"), "x", "'entrypont' was unexpected"),
        (("metadata", "lables"), {}, "'lables' was unexpected"),
        (("spec", "rayClusterSpec", "authOptions", "mode"), "tokens", "'tokens' is not one of"),
        (("spec", "backoffLimit"), "none", "'none' is not of type 'integer'"),
        (
            ("spec", "rayClusterSpec", "headGroupSpec", "template", "spec", "securityContent"),
            {},
            "'securityContent' was unexpected",
        ),
        (("spec", "managedBy"), "somebody", "has a CEL rule"),
    ],
)
def test_a_mistake_is_found(
    built: dict[str, dict[str, Resource]],
    schema: crd.Schema,
    path: tuple[str, ...],
    value: object,
    problem: str,
) -> None:
    job = copy.deepcopy(built["base"]["RayJob"])
    node = job
    for name in path[:-1]:
        node = node[name]
    node[path[-1]] = value
    assert any(problem in line for line in crd.problems(schema, job))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubernetes_accepts_the_rest(
    built: dict[str, dict[str, Resource]], overlay: str, unavailable: Callable[[str], NoReturn]
) -> None:
    try:
        import kubernetes_validate
    except ImportError:
        unavailable("not installed: kubernetes-validate")
    resources = built[overlay]
    checked = [resources["ConfigMap"], resources["PersistentVolumeClaim"]]
    # What KubeRay makes pods of: it leaves out the fields that every pod has.
    checked += [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": pod["spec"]}
        for name, pod in _pods(resources["RayJob"]).items()
    ]
    for one in checked:
        kubernetes_validate.validate(one, "1.35", strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(checked[0] | {"dta": {}}, "1.35", strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_pod_may_do_more_than_compute(
    built: dict[str, dict[str, Resource]], overlay: str
) -> None:
    for pod in _pods(built[overlay]["RayJob"]).values():
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            assert container["image"] == "registry.example.com/headrace:0.1.0"
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }
            assert set(container["resources"]["limits"]) >= {"cpu", "memory"}
    cluster = built[overlay]["RayJob"]["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_job_runs_the_demo_study(
    built: dict[str, dict[str, Resource]], overlay: str, project: Path
) -> None:
    resources = built[overlay]
    study = resources["ConfigMap"]["data"]["study.yaml"]
    assert study == (project / "examples" / "heat.yaml").read_text()
    job = resources["RayJob"]
    head = _pods(job)["head"]["spec"]
    mounts = {one["name"]: one["mountPath"] for one in head["containers"][0]["volumeMounts"]}
    volumes = {one["name"]: one for one in head["volumes"]}
    assert volumes["study"]["configMap"]["name"] == resources["ConfigMap"]["metadata"]["name"]
    claim = volumes["runs"]["persistentVolumeClaim"]["claimName"]
    assert claim == resources["PersistentVolumeClaim"]["metadata"]["name"]
    words = job["spec"]["entrypoint"].split()
    assert words[:3] == ["headrace", "run", f"{mounts['study']}/study.yaml"]
    assert words[3] == "--out"
    assert words[4].startswith(f"{mounts['runs']}/")


def test_the_workers_have_the_cpus_and_the_memory_that_the_study_needs(
    built: dict[str, dict[str, Resource]],
) -> None:
    study = _study(built["base"])
    cluster = built["base"]["RayJob"]["spec"]["rayClusterSpec"]
    (workers,) = cluster["workerGroupSpecs"]
    cpus = int(workers["rayStartParams"]["num-cpus"])
    limits = workers["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits["cpu"] == str(cpus)
    assert workers["replicas"] * cpus >= study.cpus
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert limits["memory"].endswith("Gi")
    assert int(limits["memory"].removesuffix("Gi")) * 2**30 > 4 * study.slots_bytes


def test_ray_is_the_version_that_was_tested(
    built: dict[str, dict[str, Resource]], project: Path
) -> None:
    pinned = (project / "tools" / "constraints.txt").read_text()
    version = built["base"]["RayJob"]["spec"]["rayClusterSpec"]["rayVersion"]
    assert f"ray=={version}" in pinned.splitlines()


def test_the_gpu_overlay_adds_a_gpu_for_each_rank_and_nothing_else(
    built: dict[str, dict[str, Resource]],
) -> None:
    base, gpu = (copy.deepcopy(built[name]["RayJob"]) for name in OVERLAYS)
    pod = _pods(gpu)["workers"]["spec"]
    workers = gpu["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    each = int(pod["containers"][0]["resources"]["limits"].pop("nvidia.com/gpu"))
    assert workers["replicas"] * each == _study(built["overlays/gpu"]).trainer.ranks
    del pod["tolerations"]
    assert gpu == base


def test_the_dockerfile_is_clean(project: Path, require_tool: Callable[..., None]) -> None:
    require_tool("hadolint")
    path = project / "deploy" / "image" / "Dockerfile"
    done = subprocess.run(
        [shutil.which("hadolint") or "", "--format", "json", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert json.loads(done.stdout) == []
