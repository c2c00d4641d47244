"""One cell of a sweep as two compiled programmes from one trace.

    prologue(consts, axes)                          -> state, carried
    advance(consts, carried, state, times)          -> state, values

`run` is called once, inside the trace of the prologue. There the advance of its training is traced too, which yields
the arrays that `run` closes over (they become arguments) and the values it computed, such as a rate or an anchor
(returned by the prologue as `carried`). The second programme never executes `run` again. Both are vmapped over the
members; carried values that depend on no axis stay unbatched, and so do the step and the timetable.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdyn import dynamics
from jaxdyn.dynamics import State, Timetable, Training
from jaxdyn.ensemble import hoist
from jaxdyn.models.width import Width


@dataclass(frozen=True, eq=False)
class Programme:
    """The traced programmes of one cell.

    Attributes:
        training: the training `run` returned; its arrays are dead tracers, its static parts may be read.
        pieces: the timetable of the run, cut into pieces that share one compilation.
        num_members: how many members run together.
        variables: what each record yields, `{variable: Variable}`.
        constants: the arrays that both programmes take as arguments.
        axes: the flat vmapped arguments, [r, …] each.
    """

    training: Training
    pieces: list[Timetable]
    num_members: int
    variables: tuple[dict[str, Any], ...]
    constants: list[Any]
    axes: list[Any]
    _prologue: Callable[..., Any]
    _advance: Callable[..., Any]

    @cached_property
    def traced(self) -> tuple[Any, Any]:
        """Prologue and advance, traced but not lowered: `.lower(lowering_platforms=…)` needs no device."""
        prologue = jax.jit(self._prologue).trace(self._constants, self._axes)
        state, carried = prologue.out_info
        advance = jax.jit(self._advance, donate_argnums=2).trace(
            self._constants, carried, state, _shapes(self.pieces[0])
        )
        return prologue, advance

    @cached_property
    def lowered(self) -> tuple[Any, Any]:
        """Prologue and advance, lowered for the default device."""
        prologue, advance = self.traced
        return prologue.lower(), advance.lower()

    @cached_property
    def compiled(self) -> tuple[Any, Any]:
        """Prologue and advance, compiled for the default device."""
        prologue, advance = self.lowered
        return prologue.compile(), advance.compile()

    @cached_property
    def fingerprint(self) -> dict[str, str]:
        """Hashes of the code (StableHLO of both programmes) and of the arrays that went into it."""
        code = hashlib.sha256()
        for lowered in self.lowered:
            code.update(lowered.as_text().encode())
        data = hashlib.sha256()
        for constant in self.constants:
            array = np.asarray(jax.random.key_data(constant) if is_key(constant) else constant)
            data.update(f"{array.dtype}{array.shape}".encode())
            data.update(np.ascontiguousarray(array).tobytes())
        return {"programme": code.hexdigest(), "arrays": data.hexdigest()}

    def start(self) -> tuple[State, Any]:
        """Run the prologue: the members' states before the first step, and what the advance needs."""
        return self.compiled[0](self.constants, self.axes)

    def go_on(self, carried: Any, state: State, times: Timetable) -> tuple[State, dict[str, Any]]:
        """Run one piece. The state handed in is consumed."""
        return self.compiled[1](self.constants, carried, state, times)

    @property
    def _constants(self) -> Any:
        return _shapes(self.constants)

    @property
    def _axes(self) -> Any:
        return _shapes(self.axes)


def programme(
    run: Callable[..., Training],
    fixed: Mapping[str, Any],
    arguments: Mapping[str, Any],
    *,
    num_pieces: int,
    chunk: int,
) -> Programme:
    """Trace one cell.

    Args:
        run: the user's function of the axes.
        fixed: values of the loop axes.
        arguments: values of the vmap axes, each leaf with one leading member axis.
        num_pieces: into how many pieces a run is cut, at most.
        chunk: how many members advance together; chunks follow one another.

    Raises:
        TypeError: where `run` returns something else than a `Training`, or decides in Python on a traced axis.
    """
    leaves, structure = jax.tree.flatten(dict(arguments))
    axes = [jnp.asarray(leaf) for leaf in leaves]
    num_members = axes[0].shape[0] if axes else 1
    found: dict[str, Any] = {}

    def member(*leaves: Any) -> Any:
        training = dynamics.anchored(call_run(run, fixed, jax.tree.unflatten(structure, leaves)))
        state = dynamics.init(training)
        whole = training.timetable()
        cut = dynamics.pieces(whole, -(-len(whole.stop) // num_pieces))
        closed = hoist.hoist(jax.make_jaxpr(lambda s, t: dynamics.advance(training, s, t))(state, cut[0]))
        found.update(training=training, pieces=cut, advance=closed, state=jax.tree.structure(state))
        found["variables"] = dynamics.variables(training, state)
        found["values"] = jax.tree.structure(
            jax.eval_shape(lambda s, t: dynamics.advance(training, s, t)[1], state, cut[0])
        )
        return jax.tree.leaves(state), [const for const in closed.consts if hoist.is_traced(const)]

    opening = hoist.hoist(jax.make_jaxpr(member)(*(jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for x in axes)))
    closing, states, values = found["advance"], found["state"], found["values"]
    is_computed = [hoist.is_traced(const) for const in closing.consts]
    captured = [const for const, traced in zip(closing.consts, is_computed, strict=True) if not traced]
    constants, of_opening, of_closing = _share(list(opening.consts), captured)
    begin, proceed = hoist.call(opening), hoist.call(closing)
    num_state = states.num_leaves
    carried_axes = [0 if depends else None for depends in hoist.dependent(opening)[num_state:]]
    state_axes = jax.tree.unflatten(states, [None] + [0] * (num_state - 1))  # `step` comes first

    def prologue(constants: Any, axes: Any) -> Any:
        def one(_: Any, leaves: Any) -> Any:
            results = begin([constants[i] for i in of_opening], leaves)
            return jax.tree.unflatten(states, results[:num_state]), results[num_state:]

        return jax.vmap(one, out_axes=(state_axes, carried_axes))(jnp.arange(num_members), axes)

    def advance(constants: Any, carried: Any, state: State, times: Timetable) -> Any:
        def one(_: Any, carried: Any, state: State) -> Any:
            computed, given = iter(carried), iter([constants[i] for i in of_closing])
            consts = [next(computed) if traced else next(given) for traced in is_computed]
            results = proceed(consts, [*jax.tree.leaves(state), *jax.tree.leaves(times)])
            return jax.tree.unflatten(states, results[:num_state]), jax.tree.unflatten(values, results[num_state:])

        if chunk >= num_members:
            mapped = jax.vmap(one, in_axes=(0, carried_axes, state_axes), out_axes=(state_axes, 0))
            return mapped(jnp.arange(num_members), carried, state)

        def member(batched: Any) -> Any:
            own, rest = batched
            mine = iter(own)
            every = [next(mine) if axis == 0 else shared for axis, shared in zip(carried_axes, carried, strict=True)]
            return one(None, every, rest._replace(step=state.step))

        own = [value for axis, value in zip(carried_axes, carried, strict=True) if axis == 0]
        members = (own, state._replace(step=None))
        reached, recorded = jax.lax.map(member, members, batch_size=None if chunk == 1 else chunk)
        return reached._replace(step=reached.step[0]), recorded

    return Programme(
        found["training"], found["pieces"], num_members, found["variables"], constants, axes, prologue, advance
    )


def call_run(run: Callable[..., Training], fixed: Mapping[str, Any], values: Mapping[str, Any]) -> Training:
    """Call the user's function, and turn what JAX says of traced axes into what to do about them."""
    try:
        with jax.default_matmul_precision("highest"):
            training = run(**fixed, **values)
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError) as error:
        raise TypeError(
            f"`run` needs the concrete value of something that depends on a vmapped axis ({', '.join(values)}): an argument "
            "that sets a shape, a Python `if`, or a schedule such as optax.exponential_decay. Move that axis to `loop=`, or "
            f"write the schedule with jax.numpy. JAX says: {str(error).splitlines()[0]}"
        ) from error
    except TypeError as error:
        if "Width(maximum" not in str(error) or "loop=" in str(error):
            raise
        raise TypeError(
            "`run` uses a padded width as a shape, which only the families in jaxdyn.models can do. Sweep this width with "
            '`loop={"width": [...]}` instead of `vmap={"width": jd.widths([...])}`.'
        ) from error
    if not isinstance(training, Training):
        raise TypeError(f"`run` returns a jd.Training, but returned {type(training).__name__}.")
    if any(isinstance(value, Width) for value in values.values()):
        _refuse_shape_dependent(training.optimizer)
    return training


_SHAPE_DEPENDENT = {
    "scale_by_factored_rms": "adafactor",
    "scale_by_muon": "muon",
    "clip_by_block_rms": "clip_by_block_rms",
}


def _refuse_shape_dependent(optimizer: Any) -> None:
    """Refuse optimisers whose step depends on the padded shape of a leaf."""
    names = _functions_within(optimizer)
    found = [words for name, words in _SHAPE_DEPENDENT.items() if name in names]
    if found:
        raise TypeError(
            f"{found[0]} looks at the shapes of the parameters, so a padded width would train differently from a plain one. "
            'Sweep the width with `loop={"width": [...]}`, or use another optimizer.'
        )


def _functions_within(optimizer: Any) -> set[str]:
    """Names of the optax functions that made the closures of a transformation."""
    names: set[str] = set()
    seen: set[int] = set()
    stack = [optimizer.init, optimizer.update]
    while stack:
        item = stack.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, (tuple, list, dict)):
            stack.extend(item.values() if isinstance(item, dict) else item)
            continue
        if getattr(item, "__module__", "").startswith("optax"):
            names.add(getattr(item, "__qualname__", "").split(".")[0])
        stack.extend(cell.cell_contents for cell in getattr(item, "__closure__", None) or () if _holds(cell))
        stack.extend(inner for inner in (getattr(item, "func", None), getattr(item, "__wrapped__", None)) if inner)
    return names


def _holds(cell: Any) -> bool:
    try:
        return callable(cell.cell_contents) or isinstance(cell.cell_contents, (tuple, list, dict))
    except ValueError:
        return False


def _share(first: list[Any], second: list[Any]) -> tuple[list[Any], list[int], list[int]]:
    """One list of the arrays of both programmes, each array once, and where each programme finds its own."""
    position: dict[int, int] = {}
    shared: list[Any] = []
    for const in (*first, *second):
        if id(const) not in position:
            position[id(const)] = len(shared)
            shared.append(const)
    return shared, [position[id(c)] for c in first], [position[id(c)] for c in second]


def _shapes(tree: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), x.dtype), tree)


def is_key(value: Any) -> bool:
    """Whether an array holds random keys, which numpy does not know."""
    return bool(jnp.issubdtype(value.dtype, jax.dtypes.prng_key))
