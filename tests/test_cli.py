"""Every subcommand does its work, and bad input gives one clear line and exit code 2."""

from __future__ import annotations

import csv
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import click
import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

import asmkit
from asmkit.annotations import read, read_shapes
from asmkit.cli import main
from asmkit.datasets import synthetic_faces

TINY = ("--recipe", "demo", "--set", "width=0.35", "--input-size", "32", "--batch-size", "8")


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def succeed(*arguments: object) -> Result:
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    return result


def process(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "asmkit", *map(str, arguments)]


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rendered faces ü")  # a blank and an umlaut in every path
    synthetic_faces(24, 3, size=64).save(folder)
    return folder


@pytest.fixture(scope="module")
def model(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "faces.npz"
    succeed("model", "fit", faces, "-o", path, "--components", 6)
    return path


@pytest.fixture(scope="module")
def run(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    succeed("train", "--data", faces, "--out", folder, *TINY, "--epochs", 2, "--threads", 1)
    return folder


# -- the subcommands


def _commands() -> list[tuple[str, ...]]:
    with click.Context(main) as context:
        names = main.list_commands(context)
    return [(name,) for name in names] + [("model", name) for name in ("fit", "info", "plot")]


@pytest.mark.parametrize("command", _commands(), ids=" ".join)
def test_help_has_an_example_and_explains_every_option(command: tuple[str, ...]) -> None:
    text = succeed(*command, "--help").stdout
    assert f"asmkit {' '.join(command)}" in text.partition("Example")[2]
    with click.Context(main) as context:
        found: click.Command | None = main
        for name in command:
            assert isinstance(found, click.Group)
            found = found.get_command(context, name)
    assert found is not None
    for parameter in found.params:
        assert not isinstance(parameter, click.Option) or parameter.help


def test_help_of_all_lists_every_command() -> None:
    text = succeed("--help").stdout
    for command in _commands()[:8]:
        assert command[0] in text.partition("Commands:")[2]
    assert asmkit.__version__ in succeed("--version").stdout


def test_the_module_runs_as_a_program() -> None:
    result = subprocess.run(process("--version"), capture_output=True, text=True, check=True)
    assert result.stdout.split()[-1] == asmkit.__version__


def test_model_fit_info_and_plot(faces: Path, model: Path, tmp_path: Path) -> None:
    fitted = asmkit.ShapeModel.load(model)
    np.testing.assert_array_equal(fitted.mean_, asmkit.ShapeModel(6).fit(read_shapes(faces)).mean_)
    text = succeed("model", "info", model).stdout
    assert "68 points in 2-D" in text
    assert len(text.splitlines()) == 4 + 6
    succeed("model", "plot", model, "-o", tmp_path / "modes.png", "--modes", 2)
    assert cv2.imread(str(tmp_path / "modes.png")) is not None


def test_model_fit_takes_a_pattern_a_share_and_a_mirror(faces: Path, tmp_path: Path) -> None:
    pattern, out = f"{faces}/face_0000*.pts", tmp_path / "new" / "model.npz"
    succeed("model", "fit", pattern, "-o", out, "--components", 0.8, "--mirror", "--align", "box")
    fitted = asmkit.ShapeModel.load(out)
    assert (fitted.align, fitted.scheme_, fitted.n_samples_) == ("box", "ibug68", 20)
    assert fitted.explained_variance_ratio_.sum() >= 0.8


def test_smooth_writes_what_the_model_smooths(faces: Path, model: Path, tmp_path: Path) -> None:
    text = succeed("smooth", model, faces, "-o", tmp_path / "out.v2", "--components", 3).stdout
    assert "24" in text
    expected = asmkit.ShapeModel.load(model).smooth(read_shapes(faces), 3)
    np.testing.assert_allclose(read_shapes(tmp_path / "out.v2"), expected, rtol=0, atol=1e-12)
    one = tmp_path / "one.pts"
    succeed("smooth", model, faces / "face_00000.pts", "-o", one, "--components", 3)
    np.testing.assert_allclose(read_shapes(one)[0], expected[0], rtol=0, atol=1e-12)


def test_pose_prints_and_writes_the_same_table(faces: Path, tmp_path: Path) -> None:
    printed = succeed("pose", faces).stdout
    succeed("pose", faces, "-o", tmp_path / "poses.csv")
    assert (tmp_path / "poses.csv").read_text() == printed
    rows = list(csv.DictReader(printed.splitlines()))
    assert [row["name"] for row in rows] == [a.name for a in read(faces)]
    angles = np.array([[float(row[key]) for key in ("yaw", "pitch", "roll")] for row in rows])
    truth = synthetic_faces(24, 3, size=64).euler
    assert np.abs(angles - truth).mean() < 6
    perspective = succeed("pose", faces, "--camera", "500,500,32,32").stdout
    assert perspective != printed


def test_evaluate_prints_one_json_object(run: Path, faces: Path) -> None:
    summary = json.loads(succeed("evaluate", run, "--data", faces, "--json").stdout)
    expected = {"n", "nme", "median", "normalizer", "failure_rate", "auc", "threshold", "pose_mae"}
    assert expected <= summary.keys()
    assert (summary["n"], summary["normalizer"]) == (24, "inter-ocular")
    assert summary["pose_mae"].keys() == {"yaw", "pitch", "roll"}
    predictor = asmkit.load(run)
    again = asmkit.evaluate(predictor, read(faces))
    assert summary["nme"] == pytest.approx(100 * again.nme.mean(), abs=1e-4)


def test_evaluate_prints_a_table(run: Path, faces: Path) -> None:
    text = succeed("evaluate", run, "--data", faces, "--normalizer", "box-size").stdout
    assert "found" not in text  # the true boxes lose no face
    assert "(box-size)" in text
    with_detector = succeed("evaluate", run, "--data", faces, "--boxes", "detector", "--json")
    summary = json.loads(with_detector.stdout)
    assert summary["boxes"] == "detector"
    assert summary["recall"] == pytest.approx(100 * (1 - summary["missed"] / 24), abs=1e-3)


def test_evaluate_takes_the_part_that_the_training_held_out(run: Path, faces: Path) -> None:
    from asmkit.splits import validation_part

    held_out = validation_part([a.name for a in read(faces)], 0.05).sum()
    result = succeed("evaluate", run, "--data", faces, "--part", "validation", "--json")
    assert json.loads(result.stdout)["n"] == held_out > 0


def test_predict_equals_the_library(run: Path, faces: Path, tmp_path: Path) -> None:
    photos = [faces / f"face_0000{i}.png" for i in range(3)]
    box = "12.5,10,40,41"
    result = succeed(
        "predict", "--network", run, *photos, "--json", "--box", box, "--overlay", tmp_path / "o"
    )
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["image"] for line in lines] == [str(photo) for photo in photos]
    expected = asmkit.load(run).predict(asmkit.read_image(photos[2]), [[12.5, 10, 40, 41]])
    np.testing.assert_array_equal(lines[2]["faces"][0]["points"], expected.points[0])
    np.testing.assert_array_equal(lines[2]["faces"][0]["pose"], expected.pose[0])
    assert lines[2]["faces"][0]["face"] is None  # ASMNet has no tracking head
    for photo in photos:
        drawn = asmkit.read_image(tmp_path / "o" / f"{photo.stem}.png")
        assert (drawn != asmkit.read_image(photo)).any()


def test_no_face_is_a_result_not_an_error(run: Path, tmp_path: Path) -> None:
    for name, shape in (("grey.png", (80, 90)), ("dot.png", (1, 1)), ("alpha.png", (70, 70, 4))):
        cv2.imwrite(str(tmp_path / name), np.full(shape, 128, np.uint8))
    cv2.imwrite(str(tmp_path / "deep.png"), np.full((60, 70), 40000, np.uint16))
    photos = sorted(tmp_path.glob("*.png"))
    assert len(photos) == 4
    lines = succeed("predict", "--network", run, *photos, "--json").stdout.splitlines()
    assert [json.loads(line)["faces"] for line in lines] == [[]] * 4
    assert "no faces" in succeed("predict", "--network", run, photos[0]).stdout
    two = succeed(
        "predict", "--network", run, photos[0], "--box", "0,0,9,9", "--box", "5,5,30,30"
    ).stdout
    assert "2 faces" in two


def test_export_writes_the_network_of_the_run(run: Path, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    succeed("export", run, "-o", tmp_path / "network.onnx")
    crops = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    first, second = (
        onnxruntime.InferenceSession(str(path)).run(None, {"images": crops})
        for path in (tmp_path / "network.onnx", run / "model.onnx")
    )
    for one, other in zip(first, second, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.slow
def test_train_resumes_a_finished_training_without_changing_it(run: Path) -> None:
    before = (run / "model.safetensors").read_bytes()
    succeed("train", "--resume", run)
    assert (run / "model.safetensors").read_bytes() == before


def test_a_recipe_chooses_its_own_network(faces: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('arch = "unheard-of"')
    result = invoke(
        "train", "--data", faces, "--out", tmp_path / "o", "--recipe", tmp_path / "mine.toml"
    )
    assert "unheard-of" in result.stderr


@pytest.mark.slow
def test_ctrl_c_stops_a_training_that_can_go_on(faces: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = ("--data", faces, "--out", out, *TINY, "--epochs", 1000, "--threads", 1)
    training = subprocess.Popen(
        process("train", *options),
        stderr=subprocess.PIPE,
        text=True,
        # Where the tests run in a shell's background, their children ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        while not (out / "log.jsonl").exists():
            assert training.poll() is None
            time.sleep(0.1)
        training.send_signal(signal.SIGINT)
        _, error = training.communicate(timeout=120)
    finally:
        training.kill()
    assert training.returncode == 130
    assert error == f"stopped; go on with: asmkit train --resume {shlex.quote(str(out))}\n"
    assert not list(out.glob(".*"))


def test_a_closed_pipe_ends_quietly(model: Path) -> None:
    command = subprocess.Popen(
        process("model", "info", model), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert command.stdout is not None
    command.stdout.close()
    assert command.stderr is not None
    assert command.stderr.read() == b""
    assert command.wait() != 0


# -- bad input


def test_more_faces_than_memory_leave_nothing(tmp_path: Path) -> None:
    result = invoke("demo", "--out", tmp_path / "new" / "demo", "--faces", 10**9)
    assert result.exit_code == 2
    assert "not enough memory" in result.stderr
    assert not list(tmp_path.iterdir())


def test_opencv_adds_no_lines_of_its_own(tmp_path: Path) -> None:
    """In a process of its own, because OpenCV reads its log level when it is imported."""
    image = np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    (tmp_path / "half.webp").write_bytes(cv2.imencode(".webp", image)[1].tobytes()[:500])
    (tmp_path / "half.pts").write_text(_pts([(i, i * i % 50) for i in range(68)]))
    command = process(
        "train", "--data", tmp_path, "--out", tmp_path / "run", "--set", "validation=0"
    )
    (tmp_path / "also.webp").write_bytes(cv2.imencode(".webp", image)[1].tobytes())
    (tmp_path / "also.pts").write_text(_pts([(i, i) for i in range(68)]))
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert "half.webp" in line


class Files(NamedTuple):
    """What a case of bad input is made of: ``tmp`` is its own, the others are shared."""

    tmp: Path
    faces: Path
    model: Path


def _copy(files: Files, n: int = 3) -> Path:
    folder = files.tmp / "data"
    folder.mkdir()
    for path in sorted(files.faces.iterdir())[: 2 * n]:
        shutil.copy(path, folder)
    return folder


def _shapes(files: Files, *texts: str) -> Path:
    folder = files.tmp / "shapes"
    folder.mkdir()
    for number, text in enumerate(texts):
        (folder / f"{number}.pts").write_text(text)
    return folder


def _pts(points: Sequence[Sequence[object]], count: int | None = None) -> str:
    lines = "\n".join(" ".join(map(str, point)) for point in points)
    return f"version: 1\nn_points: {count or len(points)}\n{{\n{lines}\n}}\n"


def _file(files: Files, name: str, content: bytes | str) -> Path:
    path = files.tmp / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def _empty(files: Files) -> Path:
    folder = files.tmp / "empty"
    folder.mkdir()
    return folder


SQUARE = [(0, 0), (9, 0), (9, 9), (0, 9)]
OUT = "out.npz"


def _fit(files: Files, data: object, *options: object) -> list[object]:
    return ["model", "fit", data, "-o", files.tmp / OUT, *options]


def _train(files: Files, data: object, *options: object) -> list[object]:
    return ["train", "--data", data, "--out", files.tmp / "run", *TINY, "--epochs", 1, *options]


def _damaged(files: Files, change: Callable[[Path], object]) -> Path:
    folder = _copy(files)
    change(folder)
    return folder


def _overwrite(name: str, content: bytes | str) -> Callable[[Path], object]:
    data = content if isinstance(content, bytes) else content.encode()
    return lambda folder: (folder / name).write_bytes(data)


def _halve(name: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return change


def _as_jpeg(folder: Path) -> None:
    image = cv2.imread(str(folder / "face_00001.png"))
    (folder / "face_00001.png").unlink()
    cv2.imwrite(str(folder / "face_00001.jpg"), image)


def _half_a_jpeg(folder: Path) -> None:
    _as_jpeg(folder)
    _halve("face_00001.jpg")(folder)


def _wflw(files: Files) -> Path:
    line = " ".join(["1.5"] * 196 + ["0 0 9 9", "0 0 0 0 0 0", "gone.jpg"])
    return _file(files, "list.txt", line + "\n")


#: name → (arguments, what the line must name)
BAD_INPUT: dict[str, tuple[Callable[[Files], list[object]], tuple[str, ...]]] = {
    "no such command": (lambda f: ["fly"], ("fly", "asmkit --help")),
    "no such option": (lambda f: ["pose", "--fly"], ("--fly", "asmkit pose --help")),
    "no such option of all": (lambda f: ["--fly"], ("--fly", "asmkit --help")),
    "missing argument": (lambda f: ["model", "info"], ("MODEL", "asmkit model info --help")),
    "missing option": (lambda f: ["model", "fit", f.faces], ("--out",)),
    "fit: missing folder": (lambda f: _fit(f, f.tmp / "none"), ("none", "no such file or folder")),
    "fit: empty folder": (lambda f: _fit(f, _empty(f)), ("empty", "no annotation", ".pts")),
    "fit: pattern without files": (lambda f: _fit(f, f"{f.tmp}/*.pts"), ("*.pts", "no file")),
    "fit: truncated": (
        lambda f: _fit(f, _damaged(f, _halve("face_00001.pts"))),
        ("face_00001.pts", "truncated"),
    ),
    "fit: wrong count": (
        lambda f: _fit(f, _shapes(f, _pts(SQUARE, 5))),
        ("0.pts", "n_points: 5", "4 points"),
    ),
    "fit: different counts": (
        lambda f: _fit(f, _shapes(f, _pts(SQUARE), _pts(SQUARE[:3]))),
        ("1.pts", "3 points", "0.pts", "4"),
    ),
    "fit: NaN": (
        lambda f: _fit(f, _shapes(f, _pts(SQUARE), _pts([("nan", 1), *SQUARE[1:]]))),
        ("NaN", "1 shape"),
    ),
    "fit: one sample": (lambda f: _fit(f, _shapes(f, _pts(SQUARE))), ("1 shape", "at least 2")),
    "fit: one sample twice": (
        lambda f: _fit(f, _shapes(f, _pts(SQUARE), _pts(SQUARE))),
        ("shapes",),
    ),
    "fit: all points equal": (
        lambda f: _fit(f, _shapes(f, _pts(SQUARE), _pts([(1, 1)] * 4))),
        ("number 1", "coincide"),
    ),
    "fit: two points": (
        lambda f: _fit(f, _shapes(f, _pts(SQUARE[:2]), _pts(SQUARE[1:3]))),
        ("2 point", "at least 3"),
    ),
    "fit: huge file": (
        lambda f: _fit(f, _file(f, "huge.pts", b"1 1\n" * 2_500_000)),
        ("huge.pts", "larger than"),
    ),
    "fit: binary file": (lambda f: _fit(f, _file(f, "x.pts", bytes(range(256)))), ("x.pts",)),
    "fit: image as data": (lambda f: _fit(f, f.faces / "face_00000.png"), (".png", ".pts")),
    "fit: no components": (lambda f: _fit(f, f.faces, "--components", 0), ("n_components",)),
    "fit: components in words": (lambda f: _fit(f, f.faces, "--components", "all"), ("'all'",)),
    "fit: too many components": (lambda f: _fit(f, f.faces, "--components", 99), ("99",)),
    "fit: mirror of nothing known": (
        lambda f: _fit(f, _shapes(f, _pts(SQUARE), _pts([(1, 2), *SQUARE[1:]])), "--mirror"),
        ("--mirror", "4 points"),
    ),
    "fit: out is a folder": (
        lambda f: ["model", "fit", f.faces, "-o", _empty(f)],
        ("empty", "is a folder"),
    ),
    "fit: out below a file": (
        lambda f: ["model", "fit", f.faces, "-o", _file(f, "file", "x") / "a" / OUT],
        ("file", "expected folders"),
    ),
    "info: missing": (lambda f: ["model", "info", f.tmp / OUT], (OUT, "no such file")),
    "info: folder": (lambda f: ["model", "info", _empty(f)], ("empty", "expected a file")),
    "info: garbage": (
        lambda f: ["model", "info", _file(f, OUT, b"\x80garbage" * 99)],
        (OUT, "shape model"),
    ),
    "info: half a model": (
        lambda f: ["model", "info", _file(f, OUT, f.model.read_bytes()[:3000])],
        (OUT, "shape model"),
    ),
    "plot: unknown format": (
        lambda f: ["model", "plot", f.model, "-o", f.tmp / "new" / "modes.xyz"],
        ("xyz", "png"),
    ),
    "smooth: other points": (
        lambda f: ["smooth", f.model, _shapes(f, _pts(SQUARE)), "-o", f.tmp / "o"],
        ("(4, 2)", "(68, 2)"),
    ),
    "smooth: onto itself": (
        lambda f: ["smooth", f.model, f.faces, "-o", f.faces],
        ("choose another place",),
    ),
    "smooth: folder onto a file": (
        lambda f: ["smooth", f.model, f.faces, "-o", _file(f, "o", "x")],
        ("o: exists already",),
    ),
    "smooth: folder as one file": (
        lambda f: ["smooth", f.model, f.faces, "-o", f.tmp / "o.pts"],
        ("o.pts", "24 annotations", "folder"),
    ),
    "smooth: not a number": (
        lambda f: ["smooth", f.model, f.faces, "-o", f.tmp / "o", "--limit", "x"],
        ("--limit", "'x'"),
    ),
    "smooth: too many modes": (
        lambda f: ["smooth", f.model, f.faces, "-o", f.tmp / "o", "--components", 7],
        ("7", "6"),
    ),
    "pose: no reference": (lambda f: ["pose", _shapes(f, _pts(SQUARE))], ("4 points", "ibug68")),
    "pose: 3-D points": (
        lambda f: ["pose", _shapes(f, _pts([(i, i * i, 1) for i in range(68)]))],
        ("3-D", "2-D"),
    ),
    "pose: three numbers": (
        lambda f: ["pose", f.faces, "--camera", "1,2,3"],
        ("--camera", "fx,fy,cx,cy"),
    ),
    "pose: no focal length": (lambda f: ["pose", f.faces, "--camera", "0,0,1,1"], ("focal",)),
    "train: nothing": (lambda f: ["train"], ("--data", "--out", "--resume")),
    "train: missing folder": (lambda f: _train(f, f.tmp / "none"), ("none", "no such")),
    "train: without images": (
        lambda f: _train(f, _damaged(f, lambda d: (d / "face_00001.png").unlink())),
        ("face_00001", "image"),
    ),
    "train: text as image": (
        lambda f: _train(f, _damaged(f, _overwrite("face_00001.png", "not a picture"))),
        ("face_00001.png", "image"),
    ),
    "train: half a PNG": (
        lambda f: _train(f, _damaged(f, _halve("face_00001.png"))),
        ("face_00001.png", "image"),
    ),
    "train: half a JPEG": (
        lambda f: _train(f, _damaged(f, _half_a_jpeg)),
        ("face_00001.jpg", "image"),
    ),
    "train: WFLW list without images": (lambda f: _train(f, _wflw(f)), ("list:1", "gone.jpg")),
    "train: one image": (lambda f: _train(f, _copy(f, 1)), ("1 shape", "2")),
    "train: NaN": (
        lambda f: _train(f, _damaged(f, _overwrite("face_00001.pts", _pts([("nan", "nan")] * 68)))),
        ("face_00001", "NaN"),
    ),
    "train: all points equal": (
        lambda f: _train(f, _damaged(f, _overwrite("face_00001.pts", _pts([(5, 5)] * 68)))),
        ("face_00001", "equal"),
    ),
    "train: different counts": (
        lambda f: _train(f, _damaged(f, _overwrite("face_00001.pts", _pts(SQUARE)))),
        ("face_00001", "(4, 2)", "(68, 2)"),
    ),
    "train: unknown network": (
        lambda f: _train(f, f.faces, "--arch", "resnet"),
        ("resnet", "asmnet", "mobilenetv2"),
    ),
    "train: other images for nothing": (
        lambda f: _train(f, f.faces, "--others", _empty(f)),
        ("others", "asmnet", "atpn"),
    ),
    "train: unknown key": (
        lambda f: _train(f, f.faces, "--set", "speed=9"),
        ("speed", "learning_rate"),
    ),
    "train: wrong type": (
        lambda f: _train(f, f.faces, "--set", "width=wide"),
        ("width", "'wide'", "float"),
    ),
    "train: unknown choice": (
        lambda f: _train(f, f.faces, "--set", "alpha=halves"),
        ("alpha", "halves", "thirds"),
    ),
    "train: too large": (
        lambda f: _train(f, f.faces, "--set", "width=1e6"),
        ("width", "0.01 to 8"),
    ),
    "train: batches of one": (lambda f: _train(f, f.faces, "--batch-size", 1), ("--batch-size",)),
    "train: no value": (lambda f: _train(f, f.faces, "--set", "width"), ("width", "KEY=VALUE")),
    "train: unknown recipe": (
        lambda f: _train(f, f.faces, "--recipe", "secret"),
        ("secret", "shipped"),
    ),
    "train: garbage recipe": (
        lambda f: _train(f, f.faces, "--recipe", _file(f, "r.toml", b"\xff\xfe= [")),
        ("r.toml", "not a"),
    ),
    "train: broken recipe": (
        lambda f: _train(f, f.faces, "--recipe", _file(f, "r.toml", "width = = 1")),
        ("r.toml", "TOML"),
    ),
    "train: out is a file": (
        lambda f: ["train", "--data", f.faces, "--out", _file(f, "o", "x"), *TINY],
        ("o exists",),
    ),
    "train: out below a file": (
        lambda f: ["train", "--data", f.faces, "--out", _file(f, "o", "x") / "run", *TINY],
        ("o/run", "expected folders"),
    ),
    "resume: nothing": (lambda f: ["train", "--resume", _empty(f)], ("empty", "no training")),
    "resume: with another option": (
        lambda f: ["train", "--resume", f.tmp, "--epochs", 3],
        ("--resume", "--epochs"),
    ),
    "resume: garbage": (
        lambda f: [
            "train",
            "--resume",
            _file(f, "recipe.toml", "") and _file(f, "run.json", "{").parent,
        ],
        ("run.json",),
    ),
    "evaluate: no network": (
        lambda f: ["evaluate", _empty(f), "--data", f.faces],
        ("empty", "model.json"),
    ),
    "predict: no network": (
        lambda f: ["predict", "--network", f.tmp / "none", f.faces / "face_00000.png"],
        ("none", "model.json"),
    ),
    "predict: garbage description": (
        lambda f: [
            "predict",
            "--network",
            _file(f, "model.json", "[]").parent,
            f.faces / "face_00000.png",
        ],
        ("model.json", "description"),
    ),
    "export: garbage description": (
        lambda f: ["export", _file(f, "model.json", "{").parent, "-o", f.tmp / "x.onnx"],
        ("model.json", "description"),
    ),
    "export: no network": (
        lambda f: ["export", _empty(f), "-o", f.tmp / "x.onnx"],
        ("empty", "model.json"),
    ),
    "export: unknown format": (
        lambda f: ["export", _empty(f), "-o", f.tmp / "x.pb"],
        ("x.pb", ".onnx"),
    ),
    "demo: out is not empty": (lambda f: ["demo", "--out", _copy(f)], ("data", "not empty")),
    "demo: too few images": (
        lambda f: ["demo", "--out", f.tmp / "o", "--data", _copy(f, 2)],
        ("2 annotated images", "too few"),
    ),
    "demo: broken image": (
        lambda f: [
            *("demo", "--out", f.tmp / "new" / "o", "--data"),
            _damaged(f._replace(faces=f.faces), _half_a_jpeg),
        ],
        ("too few",),
    ),
}

BAD_USE_OF_A_RUN: dict[str, tuple[Callable[[Files, Path], list[object]], tuple[str, ...]]] = {
    "evaluate: missing data": (
        lambda f, run: ["evaluate", run, "--data", f.tmp / "none"],
        ("none", "no such"),
    ),
    "evaluate: without images": (
        lambda f, run: [
            "evaluate",
            run,
            "--data",
            _damaged(f, lambda d: (d / "face_00001.png").unlink()),
        ],
        ("face_00001", "image"),
    ),
    "evaluate: WFLW list without images": (
        lambda f, run: ["evaluate", run, "--data", _wflw(f)],
        ("list:1", "gone.jpg"),
    ),
    "evaluate: other points": (
        lambda f, run: [
            "evaluate",
            run,
            "--data",
            _damaged(f, _overwrite("face_00001.pts", _pts(SQUARE))),
        ],
        ("face_00001", "(4, 2)", "68"),
    ),
    "evaluate: all points equal": (
        lambda f, run: [
            *("evaluate", run, "--json", "--data"),
            _damaged(f, _overwrite("face_00001.pts", _pts([(5, 5)] * 68))),
        ],
        ("face_00001", "equal"),
    ),
    "evaluate: all points missing": (
        lambda f, run: [
            *("evaluate", run, "--json", "--data"),
            _damaged(f, _overwrite("face_00001.pts", _pts([("nan", "nan")] * 68))),
        ],
        ("face_00001", "missing"),
    ),
    "evaluate: unknown normalizer": (
        lambda f, run: ["evaluate", run, "--data", f.faces, "--normalizer", "nose"],
        ("nose", "inter-ocular"),
    ),
    "evaluate: no threshold": (
        lambda f, run: ["evaluate", run, "--data", f.faces, "--threshold", 0],
        ("--threshold",),
    ),
    "predict: text as image": (
        lambda f, run: ["predict", "--network", run, _file(f, "x.jpg", "hello")],
        ("x.jpg", "image"),
    ),
    "predict: empty image": (
        lambda f, run: ["predict", "--network", run, _file(f, "x.jpg", "")],
        ("x.jpg", "empty"),
    ),
    "predict: missing image": (
        lambda f, run: ["predict", "--network", run, f.tmp / "x.jpg"],
        ("x.jpg", "no such"),
    ),
    "predict: folder as image": (
        lambda f, run: ["predict", "--network", run, _empty(f)],
        ("empty", "a file"),
    ),
    "predict: damaged PNG": (
        lambda f, run: ["predict", "--network", run, _flipped(f)],
        ("x.png", "image"),
    ),
    "predict: box of words": (
        lambda f, run: [
            "predict",
            "--network",
            run,
            f.faces / "face_00000.png",
            "--box",
            "a,b,c,d",
        ],
        ("--box", "x,y,w,h"),
    ),
    "predict: box without size": (
        lambda f, run: [
            "predict",
            "--network",
            run,
            f.faces / "face_00000.png",
            "--box",
            "1,1,0,0",
        ],
        ("--box", "at least 1 pixel"),
    ),
    "predict: box of NaN": (
        lambda f, run: [
            "predict",
            "--network",
            run,
            f.faces / "face_00000.png",
            "--box",
            "nan,1,2,3",
        ],
        ("--box", "nan"),
    ),
    "predict: box outside": (
        lambda f, run: [
            "predict",
            "--network",
            run,
            f.faces / "face_00000.png",
            "--box",
            "64,0,10,10",
        ],
        ("--box 64,0,10,10", "64 × 64"),
    ),
    "predict: drawing over an image": (
        lambda f, run: [
            "predict",
            "--network",
            run,
            f.faces / "face_00000.png",
            "--overlay",
            f.faces,
        ],
        ("--overlay", "face_00000.png"),
    ),
    "predict: overlay is a file": (
        lambda f, run: [
            *("predict", "--network", run, f.faces / "face_00000.png", "--box", "9,9,40,40"),
            *("--overlay", _file(f, "o", "x"), "--json"),
        ],
        ("o: exists already", "not a folder"),
    ),
    "predict: garbage weights": (
        lambda f, run: [
            *("predict", "--network", _broken_run(f, run, "model.onnx", b"\x08\x07garbage")),
            *(f.faces / "face_00000.png", "--engine", "onnxruntime"),
        ],
        ("model.onnx", "ONNX Runtime"),
    ),
    "predict: half a network": (
        lambda f, run: [
            *("predict", "--network", _broken_run(f, run, "model.onnx", None)),
            *(f.faces / "face_00000.png", "--engine", "onnxruntime"),
        ],
        ("model.onnx", "ONNX Runtime"),
    ),
    "predict: no network file": (
        lambda f, run: [
            *("predict", "--network", _broken_run(f, run, "model.onnx", b"")),
            *(f.faces / "face_00000.png", "--engine", "onnxruntime"),
        ],
        ("model.onnx",),
    ),
    "predict: half of torch's weights": (
        lambda f, run: [
            *("predict", "--network", _broken_run(f, run, "model.safetensors", None)),
            *(f.faces / "face_00000.png", "--engine", "torch"),
        ],
        ("model.safetensors", "SHA-256"),
    ),
    "export: half of the weights": (
        lambda f, run: [
            *("export", _broken_run(f, run, "model.safetensors", None)),
            *("-o", f.tmp / "x.onnx"),
        ],
        ("model.safetensors",),
    ),
    "export: out below a file": (
        lambda f, run: ["export", run, "-o", _file(f, "o", "x") / "x.onnx"],
        ("o: exists already", "not a folder"),
    ),
    "evaluate: held out of nothing": (
        lambda f, run: [
            *("evaluate", run, "--part", "validation"),
            *("--data", _damaged(f, lambda d: None)),
        ],
        ("data", "none of these images"),
    ),
    "resume: other data": (
        lambda f, run: ["train", "--resume", _moved_data(f, run)],
        ("data",),
    ),
}


def _flipped(files: Files) -> Path:
    content = bytearray((files.faces / "face_00000.png").read_bytes())
    content[len(content) // 2] ^= 255
    return _file(files, "x.png", bytes(content))


def _broken_run(files: Files, run: Path, name: str, content: bytes | None) -> Path:
    folder = files.tmp / "run"
    shutil.copytree(run, folder)
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2] if content is None else content)
    return folder


def _moved_data(files: Files, run: Path) -> Path:
    folder = _broken_run(files, run, "run.json", b"")
    record = {**json.loads((run / "run.json").read_text()), "data": str(_copy(files, 4))}
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def _fails_in_one_line(
    arguments: list[object], names: tuple[str, ...], tmp: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in tmp.rglob("*")}
    capfd.readouterr()
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    lines = [*result.stderr.splitlines(), *"".join(capfd.readouterr()).splitlines()]
    assert len(lines) == 1, lines
    assert lines[0].startswith("Error: ")
    for name in names:
        assert name in lines[0]
    assert {path: path.stat().st_mtime_ns for path in tmp.rglob("*")} == before


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_line_and_leaves_nothing(
    case: str, faces: Path, model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments, names = BAD_INPUT[case]
    _fails_in_one_line(arguments(Files(tmp_path, faces, model)), names, tmp_path, capfd)


@pytest.mark.parametrize("case", BAD_USE_OF_A_RUN)
def test_bad_use_of_a_run_is_one_line_and_leaves_nothing(
    case: str,
    faces: Path,
    model: Path,
    run: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    arguments, names = BAD_USE_OF_A_RUN[case]
    _fails_in_one_line(arguments(Files(tmp_path, faces, model), run), names, tmp_path, capfd)


def test_a_folder_without_write_permission(
    faces: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    if os.access(locked, os.W_OK):
        pytest.skip("this user may write everywhere")
    arguments: list[object] = ["model", "fit", faces, "-o", locked / "m.npz"]
    _fails_in_one_line(arguments, ("m.npz", "permission denied"), tmp_path, capfd)


def test_a_place_that_nobody_may_write_to(
    faces: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if not Path("/proc/self").exists():
        pytest.skip("needs /proc, where even root cannot write")
    _fails_in_one_line(
        ["pose", faces, "-o", "/proc/poses.csv"], ("/proc/poses.csv",), tmp_path, capfd
    )
