"""``asmkit evaluate`` writes what the library computes: curves, worst faces, tables of errors."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import asmkit
from asmkit.annotations import read
from asmkit.baseline import mean_in_boxes
from asmkit.cli import main
from asmkit.datasets import synthetic_faces
from asmkit.error_table import write_errors
from asmkit.evaluation import Evaluation
from asmkit.images import read_image
from asmkit.shipped import network_folder

NAME = "rendered-ibug68"
OUTPUTS = {"--plot": "ced.png", "--worst": "worst.png", "--csv": "errors.csv"}


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["evaluate", *map(str, arguments)])


def succeed(*arguments: object) -> Result:
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faces ü")
    synthetic_faces(4, 3, size=64).save(folder)
    return folder


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network in a folder of its own, with a shape model of its own."""
    folder = tmp_path_factory.mktemp("runs") / "other"
    shutil.copytree(network_folder(NAME), folder)
    asmkit.ShapeModel(2).fit(synthetic_faces(4, 5, size=32).points).save(folder / "shape_model.npz")
    return folder


@pytest.fixture(scope="module")
def evaluation(faces: Path) -> Evaluation:
    return asmkit.evaluate(asmkit.load(NAME), read(faces))


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_all_results_of_one_network(faces: Path, evaluation: Evaluation, tmp_path: Path) -> None:
    options = [word for option, name in OUTPUTS.items() for word in (option, tmp_path / name)]
    result = succeed(NAME, "--data", faces, "--json", *options)
    assert json.loads(result.stdout) == evaluation.summary  # as it is without these options
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(OUTPUTS.values())
    assert np.ptp(read_image(tmp_path / "ced.png")) == 255
    assert read_image(tmp_path / "worst.png").shape[1] > 4 * 270
    rows, annotations = rows_of(tmp_path / "errors.csv"), read(faces)
    assert [row["name"] for row in rows] == [a.name for a in annotations]
    assert [row["image"] for row in rows] == [str(a.image) for a in annotations]
    assert {(row["network"], row["normalizer"]) for row in rows} == {(NAME, "inter-ocular")}
    written = [float(row["nme_percent"]) for row in rows]
    assert written == (100 * evaluation.nme).tolist()
    for part, errors in evaluation.nme_by_group.items():
        assert [float(row[f"{part}_percent"]) for row in rows] == (100 * errors).tolist()
    boxes = [[float(row[key]) for key in ("x", "y", "width", "height")] for row in rows]
    np.testing.assert_array_equal(boxes, evaluation.boxes)
    truth = np.stack([annotation.points for annotation in annotations])
    np.testing.assert_array_equal(boxes, asmkit.boxes.landmark_box(truth))


def test_several_networks_stand_side_by_side(
    faces: Path, other: Path, evaluation: Evaluation, tmp_path: Path
) -> None:
    out = tmp_path / "errors.csv"
    printed = json.loads(succeed(NAME, other, "--data", faces, "--json", "--csv", out).stdout)
    assert printed == {NAME: evaluation.summary, str(other): evaluation.summary}
    assert [row["network"] for row in rows_of(out)] == [NAME] * 4 + [str(other)] * 4
    head, first, *_ = succeed(NAME, other, "--data", faces).stdout.splitlines()
    assert head.split() == [NAME, *str(other).split()]
    assert first.split() == ["faces", "4", "4"]


def test_each_shape_model_has_one_baseline(
    faces: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[dict[str, np.ndarray]] = []
    original = asmkit.plotting.plot_ced

    def spy(*arguments, baselines, **options):  # type: ignore[no-untyped-def]
        drawn.append(baselines)
        return original(*arguments, baselines=baselines, **options)

    monkeypatch.setattr("asmkit.plotting.plot_ced", spy)
    same = tmp_path / "same"
    shutil.copytree(network_folder(NAME), same)
    for networks in ([NAME, same], [NAME, other]):
        succeed(*networks, "--data", faces, "--plot", tmp_path / "ced.svg")
    (one, errors), (_, two) = next(iter(drawn[0].items())), drawn
    assert (list(drawn[0]), len(two)) == ([one], 2)
    assert one == "mean shape in the box"
    truth = np.stack([annotation.points for annotation in read(faces)])
    mean = asmkit.ShapeModel.load(same / "shape_model.npz").mean_
    expected = asmkit.nme(mean_in_boxes(mean, asmkit.boxes.landmark_box(truth)), truth)
    np.testing.assert_array_equal(errors, expected)


def test_a_missed_face_is_infinite_in_the_table_and_has_no_box(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asmkit.evaluation.detect_faces", lambda image: np.empty((0, 4)))
    options = [word for option, name in OUTPUTS.items() for word in (option, tmp_path / name)]
    succeed(NAME, "--data", faces, "--boxes", "detector", *options)
    for row in rows_of(tmp_path / "errors.csv"):
        assert row["nme_percent"] == row["jaw_percent"] == "inf"
        assert row["x"] == row["height"] == ""
    assert len(list(tmp_path.iterdir())) == 3


def test_a_table_of_other_faces_is_refused(
    faces: Path, evaluation: Evaluation, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="evaluated on 4 faces, but there are 3"):
        write_errors(tmp_path / "e.csv", {"a": evaluation}, read(faces)[:3])
    with pytest.raises(ValueError, match="evaluations: got none"):
        write_errors(tmp_path / "e.csv", {}, [])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([NAME, "--plot", "x.xyz"], ("x.xyz", "suffix")),
        ([NAME, "--worst", "x.pdf"], ("x.pdf", "suffix")),
        ([NAME, "--csv", "x.png"], ("x.png", ".csv")),
        ([NAME, "--plot", "x.png", "--worst", "./x.png"], ("--worst", "also --plot")),
        ([NAME, NAME, "--plot", "x.png"], (NAME, "twice")),
        ([NAME, "./b", "--worst", "x.png"], ("--worst", "one NETWORK")),
        ([NAME, "--worst-count", "3"], ("--worst-count", "--worst FILE")),
        ([NAME, "--worst", "x.png", "--worst-count", "0"], ("--worst-count",)),
        ([NAME, "--plot", "file/x.png"], ("file", "not a folder")),
        ([NAME, "--csv", "folder.csv"], ("folder.csv", "folder")),
        ([NAME, "--worst", "DATA/face_00000.png"], ("face_00000.png", "part of the data")),
        ([NAME, "--plot", "new/x.png", "--data", "empty"], ("empty", "annotation")),
        ([], ("NETWORK",)),
    ],
)
def test_what_cannot_be_done_is_told_before_the_work(
    arguments: list[str],
    words: tuple[str, ...],
    faces: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("asmkit.evaluation.evaluate", lambda *a, **b: pytest.fail("worked"))
    Path("file").write_text("x")
    Path("folder.csv").mkdir()
    Path("empty").mkdir()
    shutil.copytree(faces, "DATA")
    before = {path: path.is_file() and path.read_bytes() for path in Path().rglob("*")}
    data = [] if "--data" in arguments else ["--data", "DATA"]
    result = invoke(*arguments, *data)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    for word in words:
        assert word in result.stderr
    assert {path: path.is_file() and path.read_bytes() for path in Path().rglob("*")} == before


def test_a_result_that_fails_half_way_leaves_the_old_one(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in OUTPUTS.values():
        (tmp_path / name).write_text("old")

    def fail(*_: object) -> None:
        raise OSError(28, "full", "disk")

    monkeypatch.setattr("os.fsync", fail)
    monkeypatch.setattr("asmkit.images.cv2.imencode", fail)
    for option, name in OUTPUTS.items():
        result = invoke(NAME, "--data", faces, option, tmp_path / name)
        assert result.exit_code == 2
        assert "no space" in result.stderr
        assert (tmp_path / name).read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(OUTPUTS.values())
