"""The table of formats, and which one a file is of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from asmkit.annotations import (
    asf,
    coco,
    csv_table,
    dlib,
    ljson,
    lm2,
    muct,
    nts,
    pts,
    shard_writing,
    shards,
    stasm,
    tps,
    wflw,
)
from asmkit.annotations._annotation import Annotation
from asmkit.annotations._reading import ReadOptions
from asmkit.errors import FormatError

__all__ = ["ANNOTATION_SUFFIXES", "FORMATS", "Format", "format_of", "looks_like_annotations"]


@dataclass(frozen=True)
class Format:
    """A format of annotation files.

    Attributes
    ----------
    suffixes : tuple of str
        In lower case; files are written with the first.
    read : callable (path, options) -> list of Annotation
    encode : callable (path, annotations) -> bytes
        The content of a file; the path is for relative names of images, nothing is written.
    holds_many : bool
        Whether a file holds many annotations; otherwise a folder is written as one file for each.
    sniff : callable (path) -> bool, or None
        Whether the content looks like it; None where no other file has the suffix.
    """

    suffixes: tuple[str, ...]
    read: Callable[[Path, ReadOptions], list[Annotation]]
    encode: Callable[[Path, list[Annotation]], bytes]
    holds_many: bool
    sniff: Callable[[Path], bool] | None = None


#: Name → format. Where two share a suffix, the later is written, and read if none looks right.
FORMATS: Mapping[str, Format] = {
    "pts": Format((".pts",), pts.read, pts.encode, holds_many=False),
    "wflw": Format((".txt",), wflw.read, wflw.encode, True, wflw.sniff),
    "asf": Format((".asf",), asf.read, asf.encode, holds_many=False),
    "ljson": Format((".ljson", ".json"), ljson.read, ljson.encode, False, ljson.sniff),
    "tps": Format((".tps",), tps.read, tps.encode, holds_many=True),
    "lm2": Format((".lm2", ".lm3"), lm2.read, lm2.encode, holds_many=False),
    "nts": Format((".nts", ".dta"), nts.read, nts.encode, True, nts.sniff),
    "dlib": Format((".xml",), dlib.read, dlib.encode, True, dlib.sniff),
    "coco": Format((".json",), coco.read, coco.encode, True, coco.sniff),
    "stasm": Format((".shape",), stasm.read, stasm.encode, True, stasm.sniff),
    "muct": Format((".csv",), muct.read, muct.encode, True, muct.sniff),
    "csv": Format((".csv",), csv_table.read, csv_table.encode, True, csv_table.sniff),
    "shards": Format((".tar",), shards.read, shard_writing.encode, holds_many=True),
}

#: Suffixes of the files that hold annotations.
ANNOTATION_SUFFIXES = tuple(dict.fromkeys(s for one in FORMATS.values() for s in one.suffixes))


def format_of(path: Path, name: str | None, *, by_content: bool) -> Format:
    """The format of a file: the one named, or by its suffix and, where several share it, content.

    Raises
    ------
    FormatError
        When no format has the suffix.
    ValueError
        When no format has the name.
    """
    if name is not None:
        if name not in FORMATS:
            raise ValueError(
                f"no annotation format is called {name!r}; known: {', '.join(FORMATS)}"
            )
        return FORMATS[name]
    fitting = [one for one in FORMATS.values() if path.suffix.lower() in one.suffixes]
    if not fitting:
        raise FormatError(
            f"{path}: no annotation format has the suffix {path.suffix!r}; "
            f"known: {', '.join(ANNOTATION_SUFFIXES)}"
        )
    if by_content and len(fitting) > 1:
        return next((one for one in fitting if one.sniff and one.sniff(path)), fitting[-1])
    return fitting[-1]


def looks_like_annotations(path: Path, name: str | None) -> bool:
    """Whether a file of a folder, which holds others too, is one of the format (or of any)."""
    suffix = path.suffix.lower()
    if suffix not in ANNOTATION_SUFFIXES or path.name[0] == "." or not path.is_file():
        # Names with a leading dot are hidden: half-written files, and macOS's shadow files.
        return False
    formats = FORMATS.values() if name is None else [FORMATS[name]]
    fitting = [one for one in formats if suffix in one.suffixes]
    return any(one.sniff is None or one.sniff(path) for one in fitting)
