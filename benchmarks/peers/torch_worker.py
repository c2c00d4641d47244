"""Top Hessian eigenvalues by PyHessian, hessian-eigenthings and curvlinops. Runs in the `torch` environment."""

import json
import sys
import time
import warnings

import curvlinops
import hessian_eigenthings as he
import numpy as np
import pyhessian
import torch
from scipy.sparse.linalg import eigsh

warnings.simplefilter("ignore")
STATE = {}


class MeanOverExamples(torch.nn.Module):
    """Mean over examples, sum over outputs, of (f − y)²."""

    def forward(self, output, target):
        """The loss."""
        return ((output - target) ** 2).sum(1).mean()


def load(path):
    """The same network, data and weights as in the JAX process."""
    arrays = np.load(path)
    layers = []
    for i in range(3):
        weight = torch.from_numpy(arrays[f"w{i}"])
        layer = torch.nn.Linear(*weight.shape, bias=False)
        layer.weight.data = weight.T.contiguous()
        layers += [layer, torch.nn.Tanh()] if i < 2 else [layer]
    STATE["model"] = torch.nn.Sequential(*layers)
    STATE["data"] = (torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["y"]))
    x, y = STATE["data"]
    return {"loss": float(MeanOverExamples()(STATE["model"](x), y))}


def power_iteration(**options):
    """PyHessian: power iteration with deflation."""
    values, _ = pyhessian.hessian(STATE["model"], MeanOverExamples(), data=STATE["data"], cuda=False).eigenvalues(
        top_n=4, **options
    )
    return values, None


def eigenthings(**options):
    """hessian-eigenthings: Lanczos."""
    operator = he.HessianOperator(
        STATE["model"], [STATE["data"]], lambda model, batch: MeanOverExamples()(model(batch[0]), batch[1])
    )
    found = he.lanczos(operator, k=4, seed=0, **options)
    return found.eigenvalues.tolist(), np.asarray(found.converged).tolist()


def curvature_operators(**options):
    """curvlinops: its operator in scipy's ARPACK."""
    x, y = STATE["data"]
    model = STATE["model"]
    operator = curvlinops.HessianLinearOperator(model, torch.nn.MSELoss(), list(model.parameters()), [(x, y)])
    start = np.random.default_rng(0).standard_normal(operator.shape[0]).astype(np.float32)
    values = eigsh(operator.to_scipy(), k=4, which="LA", v0=start, return_eigenvectors=False, **options)
    return (values * y.shape[1]).tolist(), None  # PyTorch's loss divides by the outputs, too


METHODS = {
    "PyHessian": power_iteration,
    "hessian-eigenthings": eigenthings,
    "curvlinops": curvature_operators,
}

for line in sys.stdin:
    request = json.loads(line)
    if "load" in request:
        answer = load(request["load"])
    elif "method" in request:
        began = time.perf_counter()
        values, converged = METHODS[request["method"]](**request["options"])
        answer = {"values": [float(v) for v in values], "converged": converged, "seconds": time.perf_counter() - began}
    else:
        answer = {"torch": torch.__version__, "python": sys.version.split()[0]}
    print(json.dumps(answer), flush=True)
