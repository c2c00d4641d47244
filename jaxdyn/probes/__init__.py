"""Named observables of a run: `Snapshot -> Array`, each with the names of its dimensions."""

from jaxdyn.probes.curvature import BatchCriticalRate, FunctionHessianNorm, HessianSpectrum, Sharpness, SubspaceLoss
from jaxdyn.probes.features import AGOP, AGOPAlignment, FeatureAnsatz
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
    "AGOP",
    "AGOPAlignment",
    "Accuracy",
    "BatchCriticalRate",
    "BatchLoss",
    "Displacement",
    "FeatureAnsatz",
    "FunctionHessianNorm",
    "HessianSpectrum",
    "KernelChange",
    "KernelDistance",
    "LinearizationGap",
    "Loss",
    "NTKMatrix",
    "NTKNorm",
    "Outputs",
    "Sharpness",
    "SubspaceLoss",
    "TestLoss",
]
