"""menpo and menpofit, timed in an environment of their own; ``peers.py`` starts it.

    python -m venv MENPO
    MENPO/bin/pip install -r benchmarks/results/shape-core/menpo-pins.txt

(Python 3.11; menpofit 0.7.1 does not import with SciPy 1.14, nor run with NumPy 2.) This file knows
nothing of asmkit: shapes come as ``shapes.npy`` in the folder that is its one argument, each line
of standard input asks for one run, ``{"work": "smooth", "shapes": 300, "threads": 1}``, and is
answered by a line with the time that the run took. What the run found goes to ``WORK.npz`` in the
same folder, for others to check. Turning arrays into menpo's point clouds and back is not timed.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

warnings.simplefilter("ignore")  # menpo: "falling back to scipy interpolation", of images

import menpo  # type: ignore[import-not-found]  # noqa: E402  # it is in no environment of asmkit
import menpofit  # type: ignore[import-not-found]  # noqa: E402  # as menpo
import scipy  # noqa: E402
from menpo.shape import PointCloud  # type: ignore[import-not-found]  # noqa: E402  # as menpo
from menpo.transform import (  # type: ignore[import-not-found]  # noqa: E402  # as menpo
    GeneralizedProcrustesAnalysis,
)
from menpofit.modelinstance import OrthoPDM  # type: ignore[import-not-found]  # noqa: E402


class Peer:
    """The shapes, and the model once it is fitted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clouds = [PointCloud(shape) for shape in np.load(folder / "shapes.npy")]
        self.model: Any = None

    def versions(self, _: dict[str, Any]) -> dict[str, Any]:
        """What ran."""
        return {
            "python": sys.version.split()[0],
            "menpo": menpo.__version__,
            "menpofit": menpofit.__version__,
            "numpy": np.__version__,
            "scipy": scipy.__version__,
        }

    def fit(self, asked: dict[str, Any]) -> dict[str, Any]:
        """An ``OrthoPDM`` of all shapes."""
        start = _now()
        self.model = OrthoPDM(self.clouds, max_n_components=asked["modes"])
        return _since(start) | {"modes": int(self.model.model.n_active_components)}

    def smooth(self, asked: dict[str, Any]) -> dict[str, Any]:
        """``OrthoPDM.set_target`` of each shape: align, project, return."""
        clouds = self.clouds[: asked["shapes"]]
        found = []
        start = _now()
        for cloud in clouds:
            self.model.set_target(cloud)
            found.append(self.model.target)
        taken = _since(start)
        np.savez(self.folder / "smooth.npz", smoothed=np.stack([cloud.points for cloud in found]))
        return taken

    def gpa(self, asked: dict[str, Any]) -> dict[str, Any]:
        """``GeneralizedProcrustesAnalysis`` of the first shapes."""
        clouds = self.clouds[: asked["shapes"]]
        start = _now()
        found = GeneralizedProcrustesAnalysis(clouds)
        taken = _since(start)
        maps = np.linalg.inv([t.h_matrix for t in found.transforms])  # from the mean to the shapes
        np.savez(self.folder / "gpa.npz", mean=found.target.points, maps=maps)
        return taken | {"sweeps": found.n_iterations, "converged": bool(found.converged)}


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _since(start: tuple[float, float]) -> dict[str, Any]:
    return {"clock": time.perf_counter() - start[0], "processor": time.process_time() - start[1]}


def main() -> None:
    peer = Peer(Path(sys.argv[1]))
    works = {"versions": peer.versions, "fit": peer.fit, "smooth": peer.smooth, "gpa": peer.gpa}
    for line in sys.stdin:
        asked = json.loads(line)
        with threadpool_limits(asked.get("threads", 1)):
            answer = works[asked["work"]](asked)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
