"""Coverage-guided fuzzing of every annotation reader, by atheris (not a dependency of asmkit).

    pip install atheris
    python benchmarks/fuzz_readers.py -runs=1000000 -max_len=4096

Further arguments are libFuzzer's. The first byte of an input chooses the format, the rest is the
file. A reader may give annotations or raise FormatError or OSError; what it gives, its writer may
refuse with ValueError. Anything else, more than a second of processor time, or more than a
gigabyte is a find: it is printed and kept in the working folder as ``crash-…``. The seeds are
small files made by the writers, and the unusual spellings that the writers avoid; they and what
grows from them stand in the folder ``fuzz_readers`` there, from which a later run goes on.
"""

from __future__ import annotations

import contextlib
import sys
import time
import warnings
from pathlib import Path

import atheris
import numpy as np

with atheris.instrument_imports(include=["asmkit"]):
    from asmkit.annotations import FORMATS, Annotation, write
    from asmkit.annotations._reading import ReadOptions
    from asmkit.errors import FormatError

NAMES = tuple(FORMATS)
OPTIONS = ReadOptions(image_size=(64, 48))
FOLDER = Path("fuzz_readers")
SECONDS = 1.0

OTHER_SEEDS = {
    "pts": [b"1 1\n5.5 1.25\n", b"n_points: 2 {1 1 # a\n2 3 4}"],
    "ljson": [
        b'{"version": 2, "landmarks": {"points": [[1, 2], null]}, "labels": []}',
        b'{"version": 1, "groups": [{"label": "a", "connectivity": [[0, 0]],'
        b' "landmarks": [{"point": [1, 2]}]}]}',
    ],
    "tps": [
        b"LM3=1\n1 2 3\nCURVES=1\nPOINTS=2\n1 2 3\nNA NA NA\nSCALE=0.5\nCOMMENT=x\nRADII=1\n7\n"
    ],
    "nts": [
        b"' c\n\"d\n1 2L 4L 1 9999 Dim=2\na b c d e f\n1 2 9999 9999 5 6 7 8\n",
        b"1 1 2 0 DIM=2\n1 2",
    ],
    "dlib": [
        b"<?xml version='1.0' encoding='ISO-8859-1'?><dataset><images><image file='a' width='9' "
        b"height='9'><box top='1' left='2' width='3' height='4' ignore='1'><label>f</label>"
        b"<part name='10' x='1' y='2'/><part name='9' x='3' y='4'/></box></image></images>"
        b"</dataset>",
        b"<!DOCTYPE a [<!ENTITY b 'c'>]><dataset>&b;</dataset>",
    ],
    "coco": [
        b'{"images":[{"id":1,"file_name":"a","width":9,"height":9}],"annotations":[{"image_id":1,'
        b'"keypoints":[1,2,1,0,0,0],"category_id":1,"bbox":[1,2,3,4]}],"categories":[{"id":1,'
        b'"name":"c","keypoints":["x","y"],"skeleton":[[1,2]]}]}'
    ],
    "stasm": [
        b'ss 2\nDirectories a;b\n# c\n"0004 a"\n{ 1 2\n3 4 }\n"0000 b"\n{ 1 4\n1 2 3 4 }\n',
        b"shape\n80000001 a\n{ 1 4\n1 2 3 4 }\n00000004 a\n{ 2 2\n0 0\n3 4 }\n",
    ],
}


def seeds(folder: Path) -> None:
    points = np.array([[3.0, 4.0], [10.0, 20.0], [60.0, 40.0]])
    face98 = np.arange(196.0).reshape(98, 2)
    for index, (name, its_format) in enumerate(FORMATS.items()):
        face = Annotation(
            face98 if name == "wflw" else points,
            image_size=(64, 48),
            name="a",
            attributes={"image_name": "a.png"},
        )
        path = folder / f"{name}{its_format.suffixes[0]}"
        write(path, [face], format=name)
        contents = [path.read_bytes(), *OTHER_SEEDS.get(name, [])]
        for i, content in enumerate(contents):
            (folder / f"{name}{i}.seed").write_bytes(bytes([index]) + content)
        path.unlink()


def one_input(data: bytes) -> None:
    if not data:
        return
    chosen = FORMATS[NAMES[data[0] % len(NAMES)]]
    path = FOLDER / "work" / f"case{chosen.suffixes[0]}"
    path.write_bytes(data[1:])
    start = time.process_time()
    try:
        if chosen.sniff is not None:
            chosen.sniff(path)
        found = chosen.read(path, OPTIONS)
    except (FormatError, OSError):
        found = []
    taken = time.process_time() - start
    if taken > SECONDS:
        raise RuntimeError(f"{taken:.1f} s for {len(data)} bytes")
    if any(np.isinf(face.points).any() for face in found):
        raise RuntimeError("an infinite coordinate")
    if found:
        with contextlib.suppress(ValueError):
            chosen.encode(path, found)


def main() -> None:
    warnings.simplefilter("ignore")
    for name in ("work", "corpus"):
        (FOLDER / name).mkdir(parents=True, exist_ok=True)
    seeds(FOLDER / "corpus")
    atheris.Setup([*sys.argv, "-rss_limit_mb=1024", str(FOLDER / "corpus")], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
