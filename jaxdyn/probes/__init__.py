"""Named observables of a run: `Snapshot -> Array`, each with the names of its dimensions."""

from jaxdyn.probes.ball import BallCurvature, Multilinearity
from jaxdyn.probes.curvature import (
    BatchCriticalRate,
    FunctionHessianNorm,
    HessianSpectrum,
    Sharpness,
    SubspaceLoss,
    TopDirection,
)
from jaxdyn.probes.features import AGOP, AGOPAlignment, FeatureAnsatz
from jaxdyn.probes.learning import Accuracy, BatchLoss, Loss, Outputs, TestLoss
from jaxdyn.probes.linearity import Displacement, KernelChange, KernelDistance, LinearizationGap, NTKMatrix, NTKNorm
from jaxdyn.probes.optimisation import Conditioning, PathLength, PLRatio

__all__ = [
    "AGOP",
    "AGOPAlignment",
    "Accuracy",
    "BallCurvature",
    "BatchCriticalRate",
    "BatchLoss",
    "Conditioning",
    "Displacement",
    "FeatureAnsatz",
    "FunctionHessianNorm",
    "HessianSpectrum",
    "KernelChange",
    "KernelDistance",
    "LinearizationGap",
    "Loss",
    "Multilinearity",
    "NTKMatrix",
    "NTKNorm",
    "Outputs",
    "PLRatio",
    "PathLength",
    "Sharpness",
    "SubspaceLoss",
    "TestLoss",
    "TopDirection",
]
