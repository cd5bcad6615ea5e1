"""Data sets that need no download: faces that asmkit renders itself, as pictures and as videos."""

from asmkit.datasets.synthetic import SyntheticFaces, synthetic_faces
from asmkit.datasets.synthetic_video import SyntheticVideo, synthetic_video

__all__ = ["SyntheticFaces", "SyntheticVideo", "synthetic_faces", "synthetic_video"]
