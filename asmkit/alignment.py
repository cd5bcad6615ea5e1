"""Alignment: maps that bring shapes together, the mean shape of a set, points that slide.

The names of the modules that do the work, in one place: :mod:`asmkit.transforms` (similarities and
affine maps), :mod:`asmkit.pairwise` (one shape onto another), :mod:`asmkit.procrustes` (a set of
shapes) and :mod:`asmkit.semilandmarks` (points that slide along curves).
"""

from asmkit.pairwise import (
    affine,
    centroid_size,
    coinciding,
    cross_products,
    procrustes_distance,
    refuse_coinciding,
    rigid,
    scale_and_rotation,
    similarity,
)
from asmkit.procrustes import ProcrustesResult, generalized_procrustes
from asmkit.semilandmarks import (
    SlidingResult,
    bending_energy,
    slide_and_align,
    slide_semilandmarks,
)
from asmkit.transforms import Affine, Similarity

__all__ = [
    "Affine",
    "ProcrustesResult",
    "Similarity",
    "SlidingResult",
    "affine",
    "bending_energy",
    "centroid_size",
    "coinciding",
    "cross_products",
    "generalized_procrustes",
    "procrustes_distance",
    "refuse_coinciding",
    "rigid",
    "scale_and_rotation",
    "similarity",
    "slide_and_align",
    "slide_semilandmarks",
]
