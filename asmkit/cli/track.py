"""``asmkit track``."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asmkit.cli._network import engine_option, network_option, open_network
from asmkit.cli._terminal import Stopped, shows_bars

if TYPE_CHECKING:
    from asmkit.model import ShapeModel
    from asmkit.predictor import Predictor
    from asmkit.tracking import TrackedFrame

__all__ = ["command"]


@click.command("track")
@click.argument("source")
@network_option
@click.option(
    "--model",
    "model_path",
    type=click.Path(path_type=Path),
    help="Shape model that judges and, with --constrain, corrects the landmarks. Default: "
    "shape_model.npz in the folder of the network, if it is there.",
)
@click.option("--out", type=click.Path(path_type=Path), help="FILE.jsonl or FILE.csv to write.")
@click.option(
    "--video", type=click.Path(path_type=Path), help="Video to write (.mp4, .avi, .mkv, .mov)."
)
@click.option("--smooth", is_flag=True, help="Filter landmarks and angles (One-Euro filter).")
@click.option("--constrain", is_flag=True, help="Give the nearest plausible shapes of the model.")
@click.option(
    "--look-every",
    type=click.IntRange(1),
    help="Frames between looks for newcomers while faces are tracked. Default: no such looks.",
)
@click.option("--max-frames", type=click.IntRange(1), help="Stop after so many frames.")
@engine_option
@click.option("--quiet", is_flag=True, help="No progress bar.")
def command(
    source: str,
    network: str,
    model_path: Path | None,
    out: Path | None,
    video: Path | None,
    smooth: bool,
    constrain: bool,
    look_every: int | None,
    max_frames: int | None,
    engine: str | None,
    quiet: bool,
) -> None:
    """Track the landmarks and head pose of faces through a video.

    SOURCE is a video file, a folder of images, or the number of a camera. The face detector runs at
    the start and when a face was lost; in between the landmarks lead. Ctrl-C keeps what was done.

    \b
    Examples:
      asmkit track clip.mp4 --out clip.jsonl --video seen.mp4 --smooth
      asmkit track 0 --network runs/faces --max-frames 300 --out me.csv
    """
    # FFmpeg prints lines of its own about damaged frames; OpenCV reads this when it opens a video.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    _check_places(source, out, video)
    predictor = open_network(network, engine)
    model = _model(predictor, network, model_path, constrain)
    counts = _Counts()
    try:
        _track(
            counts,
            source,
            predictor,
            model,
            out=out,
            video=video,
            smooth=smooth,
            constrain=constrain,
            look_every=look_every,
            max_frames=max_frames,
            bars=shows_bars(quiet),
        )
    except KeyboardInterrupt as stop:
        kept = [str(path) for path in (out, video) if path is not None and counts.n_frames]
        raise Stopped(f"stopped; {counts}; kept: {', '.join(kept) or 'nothing'}") from stop
    click.echo(f"{source}: {counts}")


@dataclass
class _Counts:
    """What the last line tells."""

    n_frames: int = 0
    n_with_face: int = 0
    n_detected: int = 0
    identities: set[int] = field(default_factory=set)
    start: float = field(default_factory=time.monotonic)

    def add(self, frame: TrackedFrame) -> None:
        self.n_frames += 1
        self.n_with_face += bool(frame.faces)
        self.n_detected += frame.detected
        self.identities |= {face.identity for face in frame.faces}

    def __str__(self) -> str:
        share = 100 * self.n_with_face / max(self.n_frames, 1)
        speed = self.n_frames / max(time.monotonic() - self.start, 1e-9)
        return (
            f"{_plural(self.n_frames, 'frame')} ({share:.1f} % with a face), "
            f"{_plural(self.n_detected, 'run')} of the detector, "
            f"{_plural(len(self.identities), 'identity', 'identities')}, {speed:.1f} frames/s"
        )


def _plural(n: int, one: str, more: str | None = None) -> str:
    return f"{n} {one if n == 1 else more or one + 's'}"


def _track(
    counts: _Counts,
    source: str,
    predictor: Predictor,
    model: ShapeModel | None,
    *,
    out: Path | None,
    video: Path | None,
    smooth: bool,
    constrain: bool,
    look_every: int | None,
    max_frames: int | None,
    bars: bool,
) -> None:
    from tqdm import tqdm

    from asmkit.one_euro import OneEuro
    from asmkit.plotting import draw_tracks
    from asmkit.schemes import scheme
    from asmkit.track_files import write_tracks
    from asmkit.tracking import track
    from asmkit.video import DEFAULT_FPS, open_frames, write_video

    contours = scheme(predictor.scheme).contours if predictor.scheme else ()
    with ExitStack() as stack:
        frames = stack.enter_context(open_frames(source))
        results = track(
            frames,
            predictor,
            model=model,
            smooth=OneEuro() if smooth else None,
            constrain=constrain,
            look_every=look_every,
        )
        # Both are made before the first is entered: that empties a file of this name.
        drawn = write_video(video, frames.fps or DEFAULT_FPS) if video is not None else None
        table = write_tracks(out, n_points=predictor.n_points) if out is not None else None
        for writer in (drawn, table):
            if writer is not None:
                stack.enter_context(writer)
        total = min(filter(None, (frames.count, max_frames)), default=None)
        bar = stack.enter_context(tqdm(total=total, unit="frame", disable=not bars))
        counts.start = time.monotonic()
        for frame in islice(results, max_frames):
            if table is not None:
                table.write(frame)
            counts.add(frame)
            if drawn is not None and frames.image is not None:
                drawn.write(draw_tracks(frames.image, frame, contours))
            bar.set_postfix(faces=len(frame.faces), refresh=False)
            bar.update()


def _model(
    predictor: Predictor, network: str, path: Path | None, constrain: bool
) -> ShapeModel | None:
    from asmkit.model import ShapeModel

    model = predictor.shape_model if path is None else ShapeModel.load(path)
    if model is None and constrain:
        raise ValueError(
            f"--constrain needs a shape model: none beside {network}; give --model FILE"
        )
    return model


def _check_places(source: str, out: Path | None, video: Path | None) -> None:
    """Refuse to write over the source, or two things into one file."""
    taken = {} if source.isdecimal() else {Path(source).resolve(): "SOURCE"}
    for option, path in (("--out", out), ("--video", video)):
        if path is None:
            continue
        if path.resolve() in taken:
            raise ValueError(f"{option} {path} is also {taken[path.resolve()]}; choose another")
        taken[path.resolve()] = option
