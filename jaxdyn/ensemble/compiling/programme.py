"""One cell of a sweep as two compiled programmes from one trace.

    prologue(consts, axes)                          -> state, carried
    advance(consts, carried, state, times)          -> state, values

`run` is called once, inside the trace of the prologue. There the advance of its training is traced too, which yields
the arrays that `run` closes over (they become arguments) and the values it computed, such as a rate or an anchor
(returned by the prologue as `carried`). The second programme never executes `run` again. Both are mapped over the
members; carried values that depend on no axis stay unbatched, and so do the step and the timetable.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdyn import dynamics
from jaxdyn.dynamics import State, Timetable, Training
from jaxdyn.dynamics.optimizers import functions_within
from jaxdyn.ensemble.compiling import hoist, lapack
from jaxdyn.ensemble.compiling.blame import blaming
from jaxdyn.ensemble.compiling.placement import Placement
from jaxdyn.models.width import Width


class Carried(NamedTuple):
    """What the prologue hands to the advance, two lists of arrays: `shared` by all members, and each member's `own`, [r, …]."""

    shared: Any
    own: Any


@dataclass(frozen=True, eq=False)
class Programme:
    """The traced programmes of one cell.

    Attributes:
        training: the training `run` returned; its arrays are dead tracers, its static parts may be read.
        pieces: the timetable of the run, cut into pieces that share one compilation.
        placement: where the members run, and how many together.
        variables: what each record yields, `{variable: Variable}`.
        constants: the arrays that both programmes take as arguments.
        axes: shapes of the flat vmapped arguments of all members, padding included.
    """

    training: Training
    pieces: list[Timetable]
    placement: Placement
    variables: tuple[dict[str, Any], ...]
    constants: list[Any]
    axes: list[Any]
    _prologue: Callable[..., Any]
    _advance: Callable[..., Any]
    _member: Callable[[], str]
    _compiling: list[Future[Any]] = field(default_factory=list, repr=False)

    @cached_property
    def traced(self) -> tuple[Any, Any]:
        """Prologue and advance, traced but not lowered: `.lower(lowering_platforms=…)` needs no device."""
        whole, split = self.placement.whole, self.placement.split
        states, carries = State(whole, split, split, split, split), Carried(whole, split)
        constants = _shapes(self.constants)
        opening = jax.jit(self._prologue, in_shardings=(whole, split), out_shardings=(states, carries))
        prologue = opening.trace(constants, self.axes)
        state, carried = prologue.out_info
        going = jax.jit(
            self._advance, donate_argnums=2, in_shardings=(whole, carries, states, whole), out_shardings=(states, split)
        )
        advance = going.trace(constants, _shapes(carried), _shapes(state), _shapes(self.pieces[0]))
        return prologue, advance

    @cached_property
    def lowered(self) -> tuple[Any, Any]:
        """Prologue and advance, lowered for the default device."""
        prologue, advance = self.traced
        return prologue.lower(), advance.lower()

    @cached_property
    def compiled(self) -> tuple[Any, Any]:
        """Prologue and advance, compiled for the default device."""
        if self._compiling:
            prologue, advance = (one.result() for one in self._compiling)
        else:
            prologue, advance = (one.compile(_options()) for one in self.lowered)
        return prologue, advance

    def compile_in(self, pool: Executor) -> None:
        """Begin to compile in the threads of a pool; `compiled` waits for them."""
        if not self._compiling and "compiled" not in self.__dict__:
            self._compiling.extend(pool.submit(one.compile, _options()) for one in self.lowered)

    @cached_property
    def fingerprint(self) -> dict[str, str]:
        """Hashes of the code of one member (both programmes) and of the arrays that went into it.

        Neither the devices nor the members beside it enter, so that a sweep may be resumed elsewhere.
        """
        data = hashlib.sha256()
        for constant in self.constants:
            array = on_host(constant)
            data.update(f"{array.dtype}{array.shape}".encode())
            data.update(np.ascontiguousarray(array).tobytes())
        code = hashlib.sha256(self._member().encode())
        return {"programme": code.hexdigest(), "arrays": data.hexdigest()}

    def memory(self) -> int:
        """Bytes a device holds at most while the cell runs, as XLA plans it: arguments, results and temporary values."""
        return max(_peak(compiled.memory_analysis()) for compiled in self.compiled)

    def start(self, arguments: Any) -> tuple[State, Carried]:
        """Run the prologue: the members' states before the first step, and what the advance needs.

        Args:
            arguments: values of the vmap axes, each leaf with one leading axis of at most `placement.num_members` members.
        """
        axes = [jnp.asarray(leaf) for leaf in jax.tree.leaves(arguments)]
        state, carried = self.compiled[0](self._placed, self.placement.pad(axes))
        return state, carried

    def go_on(self, carried: Carried, state: State, times: Timetable) -> tuple[State, dict[str, Any]]:
        """Run one piece. The state handed in is consumed."""
        state, values = self.compiled[1](self._placed, carried, state, times)
        return state, values

    def lay(self, state: State) -> State:
        """A state padded and on the devices where the programme expects it."""
        split = self.placement.pad(state._replace(step=None))
        return split._replace(step=jax.device_put(state.step, self.placement.whole))

    @cached_property
    def _placed(self) -> list[Any]:
        return [jax.device_put(constant, self.placement.whole) for constant in self.constants]


def programme(
    run: Callable[..., Training],
    fixed: Mapping[str, Any],
    arguments: Mapping[str, Any],
    *,
    num_pieces: int,
    placement: Placement,
) -> Programme:
    """Trace one cell: `fixed` are the values of its loop axes, `arguments` of its vmap axes, with one leading member axis each.

    A run is cut into `num_pieces` pieces at most.

    Raises:
        TypeError: where `run` returns something else than a `Training`, or uses a traced axis as a fixed value.
    """
    first = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), dict(arguments))
    axes = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(first)]
    found: dict[str, Any] = {}

    def member(values: Mapping[str, Any]) -> Any:
        training = dynamics.anchored(call_run(run, fixed, values))
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

    with blaming(member, first):
        opening = hoist.hoist(jax.make_jaxpr(member)(first))
    closing, states, values = found["advance"], found["state"], found["values"]
    is_computed = [hoist.is_traced(const) for const in closing.consts]
    captured = [const for const, traced in zip(closing.consts, is_computed, strict=True) if not traced]
    constants, of_opening, of_closing = _share(list(opening.consts), captured)
    num_state = states.num_leaves  # `step` comes first, and is the same for all
    is_own = [i > 0 and (i < num_state or depends) for i, depends in enumerate(hoist.dependent(opening))]
    is_own_carried = is_own[num_state:]
    call = lapack.one_at_a_time if jax.default_backend() == "cpu" else hoist.call
    begin_shared, begin_own = call(hoist.part(opening, [not own for own in is_own])), call(hoist.part(opening, is_own))
    proceed = call(closing)

    def prologue(constants: Any, axes: Any) -> Any:
        consts = [constants[i] for i in of_opening]
        step, *shared = begin_shared(consts, [leaf[0] for leaf in axes])

        def one(consts: Any, _: Any, own: Any) -> Any:
            return None, begin_own(consts, own[1])

        _, own = placement.over_members(one)(consts, None, (jnp.arange(placement.padded), axes))
        return jax.tree.unflatten(states, [step, *own[: num_state - 1]]), Carried(shared, own[num_state - 1 :])

    def advance(constants: Any, carried: Carried, state: State, times: Timetable) -> Any:
        step, *rest = jax.tree.leaves(state)

        def one(shared: Any, rest: Any, carried_own: Any) -> Any:
            consts, carried_shared, step, times = shared
            of_all, of_one, given = iter(carried_shared), iter(carried_own), iter(consts)
            computed = iter([next(of_one) if is_one else next(of_all) for is_one in is_own_carried])
            filled = [next(computed) if traced else next(given) for traced in is_computed]
            results = proceed(filled, [step, *rest, *jax.tree.leaves(times)])
            return results[1:num_state], results[num_state:]

        shared = ([constants[i] for i in of_closing], carried.shared, step, times)
        rest, taken = placement.over_members(one)(shared, rest, carried.own)
        reached = jnp.maximum(step, jnp.asarray(times.stop)[-1])
        return jax.tree.unflatten(states, [reached, *rest]), jax.tree.unflatten(values, taken)

    def code() -> str:
        return "\n".join(hoist.lower(closed).as_text() for closed in (opening, closing))

    sizes = [jax.ShapeDtypeStruct((placement.padded, *leaf.shape), leaf.dtype) for leaf in axes]
    return Programme(
        found["training"], found["pieces"], placement, found["variables"], constants, sizes, prologue, advance, code
    )


def trim(state: State, num_members: int) -> State:
    """A state without the padding of its members, on the host: cutting it on the devices could make them wait for each other."""
    own = jax.tree.map(lambda leaf: on_host(leaf)[:num_members], state._replace(step=None))
    return own._replace(step=state.step)


def call_run(run: Callable[..., Training], fixed: Mapping[str, Any], values: Mapping[str, Any]) -> Training:
    """Call the user's function, and refuse what it must not return."""
    with jax.default_matmul_precision("highest"):
        training = run(**fixed, **values)
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
    names = functions_within(optimizer)
    found = [words for name, words in _SHAPE_DEPENDENT.items() if name in names]
    if found:
        raise TypeError(
            f"{found[0]} looks at the shapes of the parameters, so a padded width would train differently from a plain one; use "
            "another optimizer, or sweep the width with `loop=`."
        )


def _share(first: list[Any], second: list[Any]) -> tuple[list[Any], list[int], list[int]]:
    """One list of the arrays of both programmes, each array once, and where each programme finds its own."""
    position: dict[int, int] = {}
    shared: list[Any] = []
    for const in (*first, *second):
        if id(const) not in position:
            position[id(const)] = len(shared)
            shared.append(const)
    return shared, [position[id(c)] for c in first], [position[id(c)] for c in second]


def _options() -> dict[str, Any]:
    """Compiler options.

    On a CPU vectors as wide as it has: XLA halves AVX-512 otherwise, at 5 % of a training step. On a GPU products by the vendor's library:
    Triton's, tuned when they are compiled, took ten times as long to compile on an H100, and a training step was no faster. What XLA_FLAGS
    says goes first.
    """
    ours = {"cpu": ("xla_cpu_prefer_vector_width", "512"), "gpu": ("xla_gpu_enable_triton_gemm", False)}
    name, value = ours.get(jax.default_backend(), ("", None))
    return {name: value} if name and name not in os.environ.get("XLA_FLAGS", "") else {}


def _shapes(tree: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), x.dtype), tree)


def _peak(analysis: Any) -> int:
    """Bytes on a device: what is handed in and out, less what is reused, and temporary values."""
    held = analysis.argument_size_in_bytes + analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    return int(held + analysis.temp_size_in_bytes)


def on_host(leaf: Any) -> np.ndarray:
    """An array in the host's memory; of random keys their data."""
    return np.asarray(jax.device_get(jax.random.key_data(leaf) if is_key(leaf) else leaf))


def is_key(value: Any) -> bool:
    """Whether an array holds random keys, which numpy does not know."""
    return bool(jnp.issubdtype(getattr(value, "dtype", np.dtype(object)), jax.dtypes.prng_key))
