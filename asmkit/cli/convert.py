"""``asmkit convert``."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from asmkit.annotations import Annotation

__all__ = ["command"]


@click.command("convert")
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--from", "read_as", metavar="FORMAT", help="Format of IN. Default: by its content.")
@click.option("--to", "write_as", metavar="FORMAT", help="Format of OUT. Default: by its suffix.")
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    help="Folder of the images. Default: that of the annotations.",
)
@click.option(
    "--image-size",
    metavar="WIDTH,HEIGHT",
    help="Of images that are not there, where a format needs it.",
)
@click.option("--round", "rounded", is_flag=True, help="Round to whole pixels, as dlib needs them.")
@click.option("--overwrite", is_flag=True, help="Replace files that are there already.")
@click.option("--shard-size", metavar="SIZE", help="Of a shard, as in 1GiB. Default: 256MiB.")
@click.option(
    "--crop",
    type=click.FloatRange(1),
    help="Shards keep only the square of this many times the landmark box, as in 2.6. Default: the "
    "image files as they are.",
)
@click.option(
    "--max-side",
    type=click.IntRange(1),
    help="Shards hold images of at most this many pixels a side, larger ones shrunk.",
)
@click.option(
    "--max-mebibytes", type=click.IntRange(1), help="Largest file to read. Default: 8 to 32."
)
def command(
    source: Path,
    out: Path,
    read_as: str | None,
    write_as: str | None,
    images: Path | None,
    image_size: str | None,
    rounded: bool,
    overwrite: bool,
    shard_size: str | None,
    crop: float | None,
    max_side: int | None,
    max_mebibytes: int | None,
) -> None:
    """Write annotations in another format.

    IN is a file or a folder. OUT is a file, or a folder (one that exists, or a name without suffix)
    for formats with one instance a file; these are named after their images, with _1, _2 … where
    several stand in one image. FORMAT is pts, wflw, asf, ljson, tps, lm2, nts, dlib, coco, stasm,
    muct, csv or shards. All is written or nothing. Images are copied into shards only: a new folder
    of tar files that hold images and annotations, to train on, in the layout of WebDataset.

    \b
    Examples:
      asmkit convert wings/wings.tps wings/
      asmkit convert faces/ faces/faces.xml --round
      asmkit convert keypoints.json faces.csv --images photos/
      asmkit convert faces/ shards/ --to shards --shard-size 1GiB
    """
    from asmkit.annotations import plan_files, read, write, write_shards

    is_folder = out.is_dir() or not out.suffix
    into_shards = write_as == "shards" and is_folder
    if into_shards and (rounded or overwrite):
        given = "--round" if rounded else "--overwrite"
        raise click.UsageError(f"{given} does not go with shards, which fill a new folder exactly")
    if not into_shards and (shard_size or crop or max_side):
        raise click.UsageError(
            "--shard-size, --crop and --max-side need a folder OUT and --to shards"
        )
    shard_bytes = _parse_bytes(shard_size or "256MiB")
    size = None if image_size is None else _parse_size(image_size)
    annotations = read(
        source,
        format=read_as,
        images=images,
        image_size=size,
        max_bytes=None if max_mebibytes is None else max_mebibytes * 2**20,
    )
    if into_shards:
        shards = write_shards(
            out, annotations, shard_bytes=shard_bytes, crop=crop, max_side=max_side
        )
        click.echo(f"{out}: {len(annotations)} annotations in {len(shards)} shards")
        return
    if is_folder:
        annotations = _named_after_images(annotations)
    files = plan_files(out, annotations, format=write_as)
    there = [file for file in files if file.exists()]
    if there and not overwrite:
        raise ValueError(f"{there[0]} is there already; choose another place, or give --overwrite")
    write(out, annotations, format=write_as, image_size=size, rounded=rounded)
    many = f" in {len(files)} files" if is_folder else ""
    click.echo(f"{out}: {len(annotations)} annotations{many}")


def _parse_size(text: str) -> tuple[int, int]:
    try:
        width, height = (int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(
            f"--image-size: got {text!r}, expected WIDTH,HEIGHT in whole pixels, as in 640,480"
        ) from None
    return width, height


def _parse_bytes(text: str) -> int:
    found = re.fullmatch(r"([0-9]{1,9}) ?([KMG]iB)", text, re.ASCII)
    if not found or not int(found[1]):
        raise ValueError(f"--shard-size: got {text!r}, expected a size such as 256MiB or 1GiB")
    return int(found[1]) << {"KiB": 10, "MiB": 20, "GiB": 30}[found[2]]


def _named_after_images(annotations: Sequence[Annotation]) -> list[Annotation]:
    stems = [_image_stem(annotation) for annotation in annotations]
    together, met = Counter(stems), Counter[str]()
    named = []
    for annotation, stem in zip(annotations, stems, strict=True):
        met[stem] += 1
        name = f"{stem}_{met[stem]}" if together[stem] > 1 else stem
        named.append(replace(annotation, name=name) if stem else annotation)
    return named


def _image_stem(annotation: Annotation) -> str:
    if annotation.image is not None:
        return annotation.image.stem
    name = annotation.attributes.get("image_name")
    return PureWindowsPath(name).stem if isinstance(name, str) else ""
