"""The networks that come with the package: whole, small, described, and told from folders."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import asmkit
from asmkit import shipped
from asmkit.boxes import landmark_box
from asmkit.cli import main
from asmkit.datasets import synthetic_faces
from asmkit.description import CODE_LICENSE, inherited_license
from asmkit.errors import FormatError, MissingExtraError
from asmkit.images import write_image
from asmkit.nn import Recipe, load_network
from asmkit.nn.initial_state import weights_of

ROOT = Path(__file__).parents[1]
NAMES = ["asmkit-ibug68", "asmnet-ibug68", "atpn-ibug68", "rendered-ibug68"]
FILES = {
    *("CARD.md", "LICENSE.txt", "recipe.toml", "shape_model.npz"),
    *("model.json", "model.onnx", "model.safetensors"),
}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "face.png"
    write_image(path, synthetic_faces(1, 7, size=128).images[0])
    return path


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A copy of one network in place of those that are shipped."""
    folder = tmp_path / "weights" / "rendered-ibug68"
    folder.mkdir(parents=True)
    for path in shipped.network_folder("rendered-ibug68").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(shipped, "_WEIGHTS", folder.parent)
    return folder


def test_the_names_are_known() -> None:
    assert asmkit.shipped_networks() == NAMES
    assert shipped.DEFAULT_NETWORK in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_network_is_whole_small_and_described(name: str) -> None:
    folder = shipped.network_folder(name)
    there = {path.name: path for path in folder.iterdir()}
    assert there.keys() >= FILES
    sums = dict(line.split("  ")[::-1] for line in there.pop("SHA256SUMS").read_text().splitlines())
    assert sums == {n: hashlib.sha256(p.read_bytes()).hexdigest() for n, p in there.items()}
    largest = max(path.stat().st_size for path in folder.iterdir())
    assert largest <= (4 if name == "atpn-ibug68" else 6) * 10**6
    description = json.loads(there["model.json"].read_text("utf-8"))
    assert Recipe.read(there["recipe.toml"]).arch == description["arch"]
    for part in ("## Data", "## Results", "## Limits", "## Licence"):
        assert part in there["CARD.md"].read_text("utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_what_300w_forbids_is_said(name: str, photo: Path) -> None:
    predictor = asmkit.load(name)
    folder = shipped.network_folder(name)
    told = run("predict", photo, "--network", name, "--box", "20,20,80,80").stderr
    assert predictor.license is not None
    if name == "rendered-ibug68":
        assert predictor.license == "BSD-3-Clause"
        assert (folder / "LICENSE.txt").read_bytes() == (ROOT / "LICENSE").read_bytes()
        assert told == ""
    else:
        texts = [predictor.license, told, asmkit.load.__doc__ or ""]
        texts += [(folder / n).read_text("utf-8") for n in ("CARD.md", "LICENSE.txt")]
        texts += [(ROOT / "README.md").read_text("utf-8")]
        for text in texts:
            plain = " ".join(text.split())
            assert "non-commercial research" in plain
            assert "excludes commercial use" in plain
        assert told.count("\n") == 1


def test_a_network_finds_a_rendered_face() -> None:
    face = synthetic_faces(1, 7, size=128)
    for name in NAMES:
        found = asmkit.load(name, threads=1).predict(face.images[0], landmark_box(face.points))
        assert asmkit.nme(found.points, face.points)[0] < 0.1


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_changed_or_missing_file_is_named(copied: Path, name: str) -> None:
    content = bytearray((copied / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copied / name).write_bytes(content)
    with pytest.raises(FormatError, match=rf"{name}.*SHA-256.*reinstall asmkit"):
        asmkit.load("rendered-ibug68")
    (copied / name).unlink()
    with pytest.raises(FormatError, match=rf"{name}.*is missing; reinstall asmkit"):
        asmkit.load("rendered-ibug68")


def test_a_name_that_is_neither_lists_the_names(photo: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=", ".join(NAMES)):
        asmkit.load("atpn-ibug86")
    for arguments in (
        ["predict", photo, "--network", "atpn-ibug86"],
        ["track", photo, "--network", "atpn-ibug86"],
        ["evaluate", "atpn-ibug86", "--data", tmp_path],
        ["export", "atpn-ibug86", "-o", tmp_path / "x.onnx"],
    ):
        result = run(*arguments)
        assert result.exit_code == 2
        assert result.stderr.count("\n") == 1
        for name in NAMES:
            assert name in result.stderr


def test_a_folder_with_the_name_of_a_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("atpn-ibug68").mkdir()
    assert shipped.network_folder("atpn-ibug68").parent.name == "weights"
    assert shipped.network_folder("./atpn-ibug68") == Path("atpn-ibug68")
    assert shipped.network_folder(Path("atpn-ibug68")) == Path("atpn-ibug68")


def test_a_network_in_the_place_of_an_image_is_told(photo: Path) -> None:
    result = run("predict", "asmnet-ibug68", photo)
    assert result.exit_code == 2
    assert "--network asmnet-ibug68" in result.stderr


@pytest.mark.parametrize("name", shipped.shipped_networks())
def test_torch_and_onnx_runtime_see_the_same(name: str, photo: Path) -> None:
    image, box = asmkit.read_image(photo), [[20.0, 20.0, 80.0, 80.0]]
    onnx, torch = (
        asmkit.load(name, engine=e).predict(image, box) for e in ("onnxruntime", "torch")
    )
    np.testing.assert_allclose(torch.points, onnx.points, atol=1e-2)  # pixels
    np.testing.assert_allclose(torch.pose, onnx.pose, atol=1e-2)


def test_weights_begin_a_training(tmp_path: Path) -> None:
    weights = weights_of("asmnet-ibug68", Recipe.read("asmnet"))
    assert weights is not None
    network, _ = load_network("asmnet-ibug68")
    assert weights.tensors.keys() == network.state_dict().keys()
    assert weights.license == asmkit.load("asmnet-ibug68").license


def test_what_binds_a_network_binds_what_is_made_from_it() -> None:
    bound = asmkit.load("atpn-ibug68").license
    assert inherited_license([None, CODE_LICENSE]) is None
    assert inherited_license([bound, None, bound, CODE_LICENSE]) == bound
    assert inherited_license([bound, "for teaching"]) == f"{bound}; for teaching"


def test_torch_and_training_are_told_where_there_is_onnx_alone(tmp_path: Path) -> None:
    onnx = tmp_path / "onnx"
    shutil.copytree(shipped.network_folder("atpn-ibug68"), onnx)
    (onnx / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors.*asmkit\[infer\]"):
        asmkit.load(onnx, engine="torch")
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors.*cannot be trained on"):
        load_network(onnx)
    synthetic_faces(3, 7, size=64).save(tmp_path / "faces")
    where = ("--data", tmp_path / "faces", "--out", tmp_path / "run", "--arch", "atpn")
    result = run("train", *where, "--start", onnx)
    assert result.exit_code == 2
    assert "cannot be trained on" in result.stderr
    assert not (tmp_path / "run").exists()


def test_without_an_engine_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("onnxruntime", "torch"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'asmkit\[infer\]'"):
        asmkit.load("atpn-ibug68")


def test_every_command_takes_a_name(photo: Path, tmp_path: Path) -> None:
    synthetic_faces(2, 7, size=96).save(tmp_path / "faces")
    evaluated = run("evaluate", "rendered-ibug68", "--data", tmp_path / "faces", "--json")
    assert json.loads(evaluated.stdout)["n"] == 2
    assert run("export", "rendered-ibug68", "-o", tmp_path / "x.onnx").exit_code == 0
    original = shipped.network_folder("rendered-ibug68") / "model.onnx"
    assert (tmp_path / "x.onnx").read_bytes() == original.read_bytes()
    tracked = run("track", tmp_path / "faces", "--network", "rendered-ibug68", "--max-frames", 1)
    assert tracked.exit_code == 0, tracked.output


#: Runs the command line and prints what it has imported.
_IMPORTED = """
import sys
from asmkit.cli import main
try:
    main(sys.argv[1:])
finally:
    print(*sys.modules, file=sys.stderr)
"""


def test_predicting_a_photo_needs_no_run_and_nothing_heavy(photo: Path) -> None:
    """What takes seconds to import stays out: a photo is done in one or two."""
    result = subprocess.run(
        [sys.executable, "-c", _IMPORTED, "predict", str(photo), "--box", "20,20,80,80"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "1 face: yaw" in result.stdout
    loaded = {name.partition(".")[0] for name in result.stderr.split()}
    assert {"onnxruntime", "cv2", "numpy"} <= loaded
    assert not loaded & {"torch", "numba", "scipy", "sklearn", "matplotlib", "safetensors", "onnx"}


def test_the_package_holds_every_file_of_every_network(tmp_path: Path) -> None:
    """What setuptools would put into a wheel, listed without building one."""
    code = (
        "import json, sys\n"
        "from setuptools.dist import Distribution\n"
        "made = Distribution({'src_root': '.', 'script_name': 'setup.py'})\n"
        "made.parse_config_files()\n"
        "made.set_defaults()\n"
        "made.get_option_dict('egg_info')['egg_base'] = ('test', sys.argv[1])\n"
        "build = made.get_command_obj('build_py')\n"
        "build.ensure_finalized()\n"
        "print(json.dumps([build.get_outputs(include_bytecode=False), made.packages]))\n"
    )
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    outputs, packages = json.loads(result.stdout.splitlines()[-1])
    inside = {Path(path).as_posix().partition("/asmkit/")[2] for path in outputs}
    for name in NAMES:
        folder = shipped.network_folder(name)
        assert {f"weights/{name}/{path.name}" for path in folder.iterdir()} <= inside
    assert {"py.typed", "recipes/atpn.toml", "references/ibug68.json"} <= inside
    assert set(packages) == {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / "asmkit").rglob("__init__.py")
    }
    licences = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    found = {path for pattern in licences["license-files"] for path in ROOT.glob(pattern)}
    assert len(found) == 1 + len(NAMES)
    assert "300W" in licences["license"]
