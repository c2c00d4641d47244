"""Ensembles of PyTorch networks by gradient descent: `torch.func.vmap`, compiled or not, and a plain loop.

Requests: `{"load": npz, "family", "steps", "every", "rate", "device"}` takes weights `w0, w1, w2` [E, …], inputs and targets, and answers
with the rivals' names (those with `torch.compile` on a GPU only); `{"run": name}` trains the whole ensemble once, answers with its seconds
(or its error) and leaves the losses, [E, steps / every], in `npz.name.npy`;
`{"matmul": true}` times one product 2048³.
"""

import json
import os
import sys
import time

import numpy as np
import torch

torch.set_num_threads(len(os.sched_getaffinity(0)))
STATE = {}
GRADIENTS = {}


def dense(params, x):
    """Two hidden tanh layers in NTK scaling."""
    for weight in params[:-1]:
        x = torch.tanh(x @ weight * weight.shape[0] ** -0.5)
    return x @ params[-1] * params[-1].shape[0] ** -0.5


def convolutional(params, x):
    """Two 3×3 ReLU layers and a readout of all positions, in NTK scaling; inputs [n, c, h, w] in channels-last memory."""
    for weight in params[:-1]:
        fan_in = weight.shape[1] * weight.shape[2] * weight.shape[3]
        x = torch.relu(torch.nn.functional.conv2d(x, weight, padding=1) * fan_in**-0.5)
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1) @ params[-1] * params[-1].shape[0] ** -0.5


def loss(params, x, y):
    """Mean over examples, sum over outputs."""
    return ((STATE["network"](params, x) - y) ** 2).sum(1).mean()


def load(path, family, steps, every, rate, device="cpu"):
    """The same data and weights as in the JAX process."""
    arrays = np.load(path)
    x, y = (torch.from_numpy(arrays[name]).to(device) for name in ("x", "y"))
    params = [torch.from_numpy(arrays[f"w{i}"]).to(device) for i in range(3)]
    if family == "conv":
        x = x.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
        params = [p.permute(0, 4, 3, 1, 2).contiguous() if p.ndim == 5 else p for p in params]
    network = {"dense": dense, "conv": convolutional}[family]
    STATE.update(path=path, x=x, y=y, params=params, network=network, steps=steps, every=every, rate=rate)
    on_gpu = ["torch vmap", *COMPILED]
    return {"rivals": ["torch vmap", "torch loop"] if device == "cpu" else on_gpu}


def vmapped(mode=None):
    """All members at once, the gradient compiled where a mode of `torch.compile` is given."""
    params = [p.clone() for p in STATE["params"]]
    gradient = torch.func.vmap(torch.func.grad_and_value(loss), in_dims=(0, None, None))
    if mode is not None:
        if (mode, STATE["path"]) not in GRADIENTS:
            GRADIENTS[mode, STATE["path"]] = torch.compile(gradient, mode=mode)
        gradient = GRADIENTS[mode, STATE["path"]]
    found = []
    for step in range(STATE["steps"]):
        grads, value = gradient(params, STATE["x"], STATE["y"])
        if step % STATE["every"] == 0:
            found.append(value.clone())  # graphs write over their results
        for p, g in zip(params, grads, strict=True):
            p.sub_(g, alpha=STATE["rate"])
    return torch.stack(found, 1)


def loop():
    """One member after the other."""
    found = []
    for member in range(STATE["params"][0].shape[0]):
        params = []
        for p in STATE["params"]:
            one = p[member].clone()
            params.append(
                (one.contiguous(memory_format=torch.channels_last) if one.ndim == 4 else one).requires_grad_()
            )
        values = []
        for step in range(STATE["steps"]):
            value = loss(params, STATE["x"], STATE["y"])
            grads = torch.autograd.grad(value, params)
            if step % STATE["every"] == 0:
                values.append(value.detach())
            with torch.no_grad():
                for p, g in zip(params, grads, strict=True):
                    p.sub_(g, alpha=STATE["rate"])
        found.append(torch.stack(values))
    return torch.stack(found)


def run(name):
    """Train once."""
    began = time.perf_counter()
    losses = RIVALS[name]().numpy(force=True)
    seconds = time.perf_counter() - began
    np.save(f"{STATE['path']}.{name}.npy", losses)
    return {"seconds": seconds}


def matmul():
    """One product."""
    a = STATE.setdefault("square", torch.randn(2048, 2048))
    began = time.perf_counter()
    a @ a
    return {"seconds": time.perf_counter() - began}


COMPILED = {
    "torch compile": lambda: vmapped("default"),
    "torch compile, graphs": lambda: vmapped("reduce-overhead"),
}
RIVALS = {"torch vmap": vmapped, "torch loop": loop, **COMPILED}

for line in sys.stdin:
    request = json.loads(line)
    if "load" in request:
        answer = load(request.pop("load"), **request)
    elif "run" in request:
        try:
            answer = run(request["run"])
        except Exception as error:
            if request["run"] not in COMPILED:
                raise
            answer = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
    elif "matmul" in request:
        answer = matmul()
    else:
        answer = {"torch": torch.__version__, "threads": torch.get_num_threads(), "python": sys.version.split()[0]}
    print(json.dumps(answer), flush=True)
