"""neural-tangents 0.6.5 on today's JAX: one lazy import, and the infinite-width kernels of dense networks through it.

The package is no longer maintained. It imports names that JAX has removed, and TensorFlow for one function that nobody here
needs. On first use this module lends JAX those names, puts an empty module in the place of the TensorFlow one, imports
neural-tangents, and takes the names back. It is the only file that may touch JAX internals.

Activations whose Gaussian expectations neural-tangents knows in closed form use it; other smooth ones go by `models.dual`.

References:
    Novak et al., arXiv 1912.02803. Jacot et al., arXiv 1806.07572. Lee et al., arXiv 1711.00165.
"""

import functools
import importlib
import sys
import threading
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp

from jaxdyn.models import dual
from jaxdyn.models.base import Kernels

_LOCK = threading.Lock()


def neural_tangents() -> types.ModuleType:
    """The neural-tangents package, imported on first use."""
    if "neural_tangents" not in sys.modules:
        with _LOCK, _borrowed_names(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            placeholder = types.ModuleType("neural_tangents.experimental")
            placeholder.empirical_ntk_fn_tf = None  # type: ignore[attr-defined]
            sys.modules.setdefault(placeholder.__name__, placeholder)
            importlib.import_module("neural_tangents")
    return sys.modules["neural_tangents"]


def stax() -> Any:
    """`neural_tangents.stax`."""
    return neural_tangents().stax


def dense_kernel(
    x1: Any, x2: Any = None, tolerance: float = 1e-8, *, activation: Any, num_hidden: int, bias: float, gain: Any
) -> Kernels:
    """The infinite-width kernels of a fully connected network in NTK scaling, z = W h/√fan_in + β b, with a linear output.

    Args:
        x1: inputs [n1, *d], which are flattened.
        x2: inputs [n2, *d]; x1 when None.
        tolerance: of the series of an activation without a closed form.
        activation: elementwise σ, as handed to `models.mlp`.
        num_hidden: number of hidden layers.
        bias: β.
        gain: g; h = g σ(z).

    Returns:
        The kernels [n1, n2] of one output.

    Raises:
        ValueError: where the series of an activation does not settle; the input variance is named.
    """
    a = jnp.asarray(x1).reshape(len(x1), -1)
    b = a if x2 is None else jnp.asarray(x2).reshape(len(x2), -1)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"The inputs have dimensions {a.shape[1]} and {b.shape[1]}; a kernel compares equal ones.")
    layer = closed_form(activation)
    if layer is None and num_hidden > 0:
        infinite = dual.dense_kernel(activation=activation, num_hidden=num_hidden, bias=bias, gain=gain)
        return infinite(a, b, tolerance)
    first, other = (functools.partial(stax().Dense, 1, **_scale(bias, g)) for g in (1.0, gain))
    return _evaluate([first, *[layer, other] * num_hidden], a, b)


def _scale(bias: float, gain: Any) -> dict[str, Any]:
    """NTK scaling behind an activation of a gain, as the layers of neural-tangents take it."""
    return {"W_std": gain, "b_std": bias or None, "parameterization": "ntk"}


def _evaluate(blocks: Sequence[Any], x1: Any, x2: Any) -> Kernels:
    """The kernels of layers in series, each given by what makes it."""
    with _calm():
        _, _, kernel_fn = stax().serial(*(make() for make in blocks))
        found = kernel_fn(x1, x2, ("nngp", "ntk"))
    return Kernels(found.nngp, found.ntk)


def convolution_kernel(
    x1: Any,
    x2: Any = None,
    *,
    activation: Any,
    shape: tuple[int, ...],
    num_hidden: int,
    filter_size: int,
    is_averaged: bool,
    bias: float,
    gain: Any,
) -> Kernels:
    """The infinite-width kernels of a convolutional network in NTK scaling with a linear readout.

    Args:
        x1: inputs, flat or not.
        x2: inputs; x1 when None.
        activation: elementwise σ with a closed form.
        shape: (h, w, c) of one input.
        num_hidden: number of convolutions.
        filter_size: s.
        is_averaged: global average pooling before the readout; else every position has weights of its own.
        bias: β.
        gain: g; h = g σ(z).

    Raises:
        ValueError: for an activation without a closed form.
    """
    layer = closed_form(activation)
    if layer is None:
        raise ValueError(
            f"The kernel of a convolutional network is known for activations with a closed form (relu, erf, exact gelu, sin, "
            f"cos, abs, …), but not for {activation!r}. Use `geometry.ntk(model.apply, params, x)` at large width."
        )
    layers = stax()
    first, other = (
        functools.partial(layers.Conv, 1, (filter_size, filter_size), padding="SAME", **_scale(bias, g))
        for g in (1.0, gain)
    )
    pool = layers.GlobalAvgPool if is_averaged else layers.Flatten
    a = jnp.asarray(x1).reshape(len(x1), *shape)
    b = None if x2 is None else jnp.asarray(x2).reshape(len(x2), *shape)
    readout = functools.partial(layers.Dense, 1, **_scale(bias, gain))
    return _evaluate([first, layer, *[other, layer] * (num_hidden - 1), pool, readout], a, b)


def moments(activation: Any, nngp: Any, q1: Any, q2: Any) -> tuple[Any, Any, Any, Any]:
    """Gaussian expectations of σ and σ' in closed form; arguments and results as in `dual.moments`."""
    layer = closed_form(activation)
    if layer is None:
        raise ValueError(f"No closed form is known for {activation!r}.")
    with _calm():
        start = stax().Dense(1)[2](jnp.ones((len(q1), 1)), jnp.ones((len(q2), 1)), None)
        given = start.replace(nngp=nngp, cov1=q1, cov2=q2, ntk=jnp.ones_like(nngp))
        found = layer()[2](given)
    return found.nngp, found.ntk, found.cov1, found.cov2


def closed_form(activation: Any) -> Callable[[], Any] | None:
    """The neural-tangents layer of an activation whose expectations are known, or None."""
    layers, function, settings = stax(), activation, {}
    if isinstance(activation, functools.partial) and not activation.args:
        function, settings = activation.func, dict(activation.keywords)
    if function is jax.nn.gelu:
        return layers.Gelu if settings == {"approximate": False} else None
    if function is jax.nn.leaky_relu:
        return functools.partial(layers.LeakyRelu, alpha=settings.get("negative_slope", 0.01))
    if settings:
        return None
    known = {
        jax.nn.relu: layers.Relu,
        jax.lax.erf: layers.Erf,
        jax.scipy.special.erf: layers.Erf,
        jnp.sin: layers.Sin,
        jax.lax.sin: layers.Sin,
        jnp.cos: layers.Cos,
        jax.lax.cos: layers.Cos,
        jnp.abs: layers.Abs,
        jnp.exp: layers.Exp,
        jnp.square: functools.partial(layers.Monomial, 2),
        jax.nn.identity: layers.Identity,
    }
    try:
        return known.get(function)
    except TypeError:  # not hashable, so nothing we know
        return None


@contextmanager
def _calm() -> Iterator[None]:
    """neural-tangents relies on rank promotion, and warns of what it cannot mend."""
    with jax.numpy_rank_promotion("allow"), jax.default_matmul_precision("highest"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _borrowed_names() -> Iterator[None]:
    """Lend JAX the names that neural-tangents imports, and take them back."""
    import jax.core
    import jax.extend.core
    import jax.interpreters.ad
    from jax._src import ad_util, util

    lent: list[tuple[Any, str]] = []

    def lend(module: Any, name: str, value: Any) -> None:
        if not hasattr(module, name):
            setattr(module, name, value)
            lent.append((module, name))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("Jaxpr", "JaxprEqn", "Literal", "Var", "Primitive"):
            lend(jax.core, name, getattr(jax.extend.core, name))
        lend(jax.interpreters.ad, "zeros_like_p", getattr(ad_util, "zeros_like_p", None))
        had_util = "jax.util" in sys.modules
        if not had_util:
            stand_in = types.ModuleType("jax.util")
            stand_in.safe_map, stand_in.safe_zip = util.safe_map, util.safe_zip  # type: ignore[attr-defined]
            sys.modules["jax.util"] = stand_in
    try:
        yield
    finally:
        for module, name in lent:
            delattr(module, name)
        if not had_util:
            del sys.modules["jax.util"]
