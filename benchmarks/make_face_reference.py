"""Make ``asmkit/references/ibug68.json`` from the labels of AFLW2000-3D, and say how good it is.

    python benchmarks/make_face_reference.py DATA/aflw2000/pose68.csv [--write FILE]

The estimate is that of ``asmkit.fit_reference`` from the landmarks and the labelled rotations,
each face also mirrored.

Only even-numbered rows (the first is row 0) make the reference; the odd rows measure it, by
``solve_pnp`` with ``Camera.orthographic()``, nothing fitted. The two halves are also exchanged.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

import asmkit
from asmkit._files import replacing
from asmkit.pose import euler_to_rotation

Array = npt.NDArray[np.float64]
LIMIT_DEG = 99.0


def read_table(path: Path) -> tuple[Array, Array]:
    """Angles (n, 3) in degrees and points (n, 68, 2) of the table's rows."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    values = np.array([row[1:] for row in rows[1:]], dtype=np.float64)
    return values[:, :3], values[:, 3:].reshape(len(values), -1, 2)


def estimate_reference(points: Array, angles_deg: Array) -> Array:
    """Mean face (p, 3), the outer eye corners at distance 1, six decimals."""
    mirror = np.array(asmkit.scheme("ibug68").mirror)
    X = asmkit.fit_reference(points, euler_to_rotation(angles_deg), mirror=mirror)
    X = (X - X.mean(axis=0)) / np.linalg.norm(X[36] - X[45])
    X = np.round((X + X[mirror] * [-1, 1, 1]) / 2, 6)
    return np.asarray((X + X[mirror] * [-1, 1, 1]) / 2)


def mean_absolute_error(X: Array, points: Array, angles_deg: Array) -> Array:
    """Of yaw, pitch and roll, in degrees."""
    angles = asmkit.solve_pnp(points, X, asmkit.Camera.orthographic()).euler()
    return np.asarray(np.abs((angles - angles_deg + 180) % 360 - 180).mean(axis=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path, help="pose68.csv: image, yaw, pitch, roll, x0, y0, …")
    parser.add_argument("--write", type=Path, help="where to write the JSON record")
    arguments = parser.parse_args()

    angles, points = read_table(arguments.table)
    usable = (np.abs(angles) <= LIMIT_DEG).all(axis=1)
    even = np.arange(len(angles)) % 2 == 0
    errors = {}
    for name, makes in (("even", even), ("odd", ~even)):
        made, unseen = makes & usable, ~makes & usable
        X = estimate_reference(points[made], angles[made])
        errors[name] = mean_absolute_error(X, points[unseen], angles[unseen])
        print(f"made from {made.sum()} {name} rows, MAE on the {unseen.sum()} others (degrees):")
        print("  yaw {:.2f}  pitch {:.2f}  roll {:.2f}".format(*errors[name]))
    if arguments.write:
        made = even & usable
        X = estimate_reference(points[made], angles[made])
        write_record(arguments.write, X, int(made.sum()), errors["even"])


def write_record(path: Path, X: Array, n_rows: int, error: Array) -> None:
    record = {
        "scheme": "ibug68",
        "what": (
            "An estimate of a mean face shape from the labels of AFLW2000-3D; no scan of anybody, "
            "and no measurement of depth: the labels are themselves fits of a 3-D face model."
        ),
        "frame": "x right, y down, z away from the camera; frontal; zero mean; symmetric in x",
        "unit": "distance of the outer eye corners (points 36 and 45) = 1",
        "source": (
            "AFLW2000-3D (Zhu, Lei, Liu, Shi, Li: Face Alignment Across Large Poses: A 3D "
            "Solution, CVPR 2016): 68 landmarks and yaw, pitch, roll of 1000 of its faces"
        ),
        "licence": (
            "Derived from the annotations of AFLW2000-3D, which its authors distribute for "
            "research; no image and no single annotation is contained. Check their terms before "
            "any other use."
        ),
        "rows": f"the {n_rows} even-numbered rows (first row = 0) with all angles within ±99°",
        "method": (
            "Alternate a linear least-squares solve for the 68 x 3 points, rotations given by the "
            "labels, with the scale of each face (scaled orthography); every face also mirrored"
        ),
        "made_by": "benchmarks/make_face_reference.py",
        "mae_deg_on_unseen_odd_rows": dict(
            zip(("yaw", "pitch", "roll"), (round(float(e), 3) for e in error), strict=True)
        ),
        "points": X.tolist(),
    }
    with replacing(path) as temporary:
        text = json.dumps(record, indent=1, ensure_ascii=False)
        temporary.write_text(one_point_a_line(text) + "\n", encoding="utf-8")
    print(f"wrote {path}")


def one_point_a_line(text: str) -> str:
    head, _, tail = text.partition('"points": ')
    points = json.loads(tail.rsplit("}", 1)[0])
    lines = ",\n".join("  " + json.dumps(point) for point in points)
    return f'{head}"points": [\n{lines}\n ]\n}}'


if __name__ == "__main__":
    main()
