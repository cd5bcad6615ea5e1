"""Data sets that need no download: faces that asmkit renders itself."""

from asmkit.datasets.synthetic import SyntheticFaces, synthetic_faces

__all__ = ["SyntheticFaces", "synthetic_faces"]
