"""Named observables of a run: `Snapshot -> Array`, each with the names of its dimensions."""

from jaxdyn.probes.learning import Accuracy, BatchLoss, Loss, Outputs, TestLoss
from jaxdyn.probes.linearity import (
    Displacement,
    KernelChange,
    KernelDistance,
    LinearizationGap,
    NTKMatrix,
    NTKNorm,
)

__all__ = [
    "Accuracy",
    "BatchLoss",
    "Displacement",
    "KernelChange",
    "KernelDistance",
    "LinearizationGap",
    "Loss",
    "NTKMatrix",
    "NTKNorm",
    "Outputs",
    "TestLoss",
]
