"""What an optax transformation is made of, which arguments its `update` takes, and which transformations a step cannot serve."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

UNSERVED = {
    "lookahead": "keeps two sets of parameters in a structure of its own",
    "differentially_private_aggregate": "needs the gradient of every example, where a step has their mean",
    "scale_by_sophia": "needs an objective with a random key, which a step does not have",
    "measure_with_ema": "gives a measurement in place of updates; use it in `optax.monitor`",
}
"""Functions of optax whose transformations cannot train here, and why."""


def check(optimizer: Any) -> None:
    """Refuse what is no optax transformation, and those that a step cannot serve.

    Raises:
        TypeError: with the name and the reason.
    """
    if not hasattr(optimizer, "update"):
        raise TypeError(f"`optimizer` is an optax transformation such as `optax.sgd(0.1)`, but is {optimizer!r}.")
    names = functions_within(optimizer)
    for name in sorted(names & UNSERVED.keys()):
        raise TypeError(f"`optimizer` contains optax's `{name}`, which {UNSERVED[name]}; use another optimizer.")
    if "sam" in names and not optimizer.update.__qualname__.startswith("sam."):
        raise TypeError(
            "`optimizer` wraps optax's `sam`, which takes other arguments than its wrapper hands on; wrap what is inside it."
        )


def accepted(function: Callable[..., Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Those keyword arguments that a function takes; of one that takes any, `grad_fn` only by name, which line searches refuse."""
    parameters = inspect.signature(function).parameters
    takes_any = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values())
    return {name: value for name, value in arguments.items() if name in parameters or (takes_any and name != "grad_fn")}


def functions_within(optimizer: Any) -> set[str]:
    """Names of the optax functions that made the closures of a transformation."""
    names: set[str] = set()
    seen: set[int] = set()
    stack = [getattr(optimizer, "init", None), optimizer.update]
    while stack:
        item = stack.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, (tuple, list, dict)):
            stack.extend(item.values() if isinstance(item, dict) else item)
            continue
        if (getattr(item, "__module__", "") or "").startswith("optax"):
            names.add(getattr(item, "__qualname__", "").split(".")[0])
        stack.extend(cell.cell_contents for cell in getattr(item, "__closure__", None) or () if _holds(cell))
        stack.extend(inner for inner in (getattr(item, "func", None), getattr(item, "__wrapped__", None)) if inner)
    return names


def _holds(cell: Any) -> bool:
    try:
        return callable(cell.cell_contents) or isinstance(cell.cell_contents, (tuple, list, dict))
    except ValueError:
        return False
