"""How one network evolves on a task: `Training` describes it, `train` runs it.

    w_{t+1} = w_t + optimizer(∇_w loss(f(w_t; x_t), y_t)),   (x_t, y_t) = sampler(task, key, t),   f = expand(apply, w_0)

`init` and `advance` are what `train` is made of; whoever executes an ensemble drives them in pieces. All of it is
traced under matmul precision "highest" unless the training lowers it: TF32 and bfloat16 products, the defaults on
accelerators, falsify exponents in the width.

A run that leaves the finite numbers is frozen there: its parameters stay as they were at `diverged_at`, where the loss
of the batch was first not finite or above `diverge_above`. Nothing raises inside compiled code.
"""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdyn import _tree, losses
from jaxdyn._typing import Apply, Expansion, Loss, Params, Sampler
from jaxdyn.dynamics import optimizers
from jaxdyn.dynamics.record import Record, Snapshot, Timetable, timetable
from jaxdyn.dynamics.trajectory import State, Trajectory
from jaxdyn.models.base import Model
from jaxdyn.models.taylor import exact
from jaxdyn.tasks.sampling import full_batch


@dataclass(frozen=True, eq=False)
class Training:
    """A description of a run: who executes it, in how many pieces, on which devices, is not its business.

    Attributes:
        model: the network.
        task: what it learns.
        optimizer: an optax transformation, not wrapped in anything. Its `update` gets those of the arguments `value`, `grad`, `value_fn`
            and `grad_fn` (loss and gradient of the same batch as functions of the parameters) that its signature takes.
        steps: number of steps, at least 0 (static).
        key: typed random key of the run: initialisation, minibatches and noise are streams of it.
        params0: the anchor; `model.init(key)` when None.
        loss: `(prediction, y) -> scalar`.
        sampler: which examples enter a step; `full_batch` or `minibatch(b)`.
        expand: `exact`, `linear`, `quadratic` or `taylor(k)`: the function that is trained, seen from the anchor. Where it returns a
            function with a method `on(x) -> apply`, full-batch steps use `on(task.x)`, made once before them.
        record: one `Record`, or several.
        precision: matmul precision under which everything is traced, a name that `jax.default_matmul_precision` takes. On an H100
            "TF32_TF32_F32_X3" is as exact as "highest" and up to three times as fast; a CPU does not know it.
        diverge_above: a batch loss above this counts as divergence.

    Raises:
        TypeError: for a field of the wrong kind, or an optimizer that a step cannot serve (`optimizers.UNSERVED`).
        ValueError: for negative steps, a schedule beyond the run, or a variable recorded twice.
    """

    model: Model
    task: Any
    optimizer: optax.GradientTransformation
    _: KW_ONLY
    steps: int
    key: Any
    params0: Params | None = None
    loss: Loss = losses.mse
    sampler: Sampler = full_batch
    expand: Expansion = exact
    record: Record | Sequence[Record] = ()
    precision: str = "highest"
    diverge_above: Any = float("inf")

    def __post_init__(self) -> None:
        _check(self)

    @property
    def records(self) -> tuple[Record, ...]:
        """The records, always as a tuple."""
        return (self.record,) if isinstance(self.record, Record) else tuple(self.record)

    def timetable(self) -> Timetable:
        """The legs of the whole run."""
        return timetable(self.records, self.steps)


def anchored(training: Training) -> Training:
    """The same training with its anchor `params0` made explicit."""
    if training.params0 is not None:
        return training
    with jax.default_matmul_precision(training.precision):
        return replace(training, params0=training.model.init(training.key))


def init(training: Training) -> State:
    """The state before the first step."""
    training = anchored(training)
    with jax.default_matmul_precision(training.precision):
        params0 = jax.tree.map(jnp.asarray, training.params0)
        state = State(
            step=jnp.zeros((), jnp.int32),
            params=params0,
            opt_state=training.optimizer.init(_tree.moving(params0)),
            diverged_at=jnp.full((), -1, jnp.int32),
            memory={},
        )
        snapshot = _Run(training).snapshot(state)
        memory = {
            name: probe.start(snapshot)
            for record in training.records
            for name, probe in record.probes.items()
            if hasattr(probe, "start")
        }
    return state._replace(memory=memory)


def advance(training: Training, state: State, times: Timetable | Sequence[int]) -> tuple[State, dict[str, Any]]:
    """Go on from a state, recording on the way.

    Args:
        training: the description.
        state: where the run stands.
        times: a piece of the training's timetable, or concrete numbers of completed steps, sorted and not before
            `state.step`: every record that is due at one of them is taken, and the state returned has reached the last.

    Returns:
        The new state and `{name: [rows, *dims]}`, the rows as `Timetable.rows` tells (all of them when `times` is given
        as numbers).
    """
    training = anchored(training)
    if not isinstance(times, Timetable):
        times = _table_at(training, times)
    with jax.default_matmul_precision(training.precision):
        return _Run(training).on_fixed_data().advance(state, times)


def train(training: Training) -> Trajectory:
    """Run a training from the anchor to its last step. Pure; may be jitted and vmapped.

    Args:
        training: the description.

    Returns:
        The trajectory: values `{name: [t, *dims]}`, the final state, and where it diverged.

    Example:
        >>> import jaxdyn as jd
        >>> task = jd.tasks.polynomial(jax.random.key(0), degree=1, dim=3, n=8)
        >>> model = jd.models.mlp((3, 16, 1), activation=jnp.tanh)
        >>> run = jd.Training(model, task, optax.sgd(0.1), steps=10, key=jax.random.key(1),
        ...                   record=jd.record(jd.every(5), loss=jd.probes.Loss()))
        >>> train(run).values["loss"].shape
        (3,)
    """
    training = anchored(training)
    state, values = advance(training, init(training), training.timetable())
    return Trajectory(values, state, state.diverged_at)


def batch_key(key: Any) -> Any:
    """The key that a training with this key calls its sampler with: its stream of minibatches."""
    return jax.random.fold_in(key, _BATCHES)


class Variable(NamedTuple):
    """One variable of a dataset, as a record yields it.

    Attributes:
        probe: the probe that yields it.
        part: its name within a probe that yields a dictionary; "" is the one that has the probe's own name.
        shape: shape of one value of one run.
        dtype: its type.
    """

    probe: Any
    part: str
    shape: tuple[int, ...]
    dtype: Any


def observe(training: Training, state: State, record: Record) -> dict[str, Any]:
    """What the probes of a record see at a state: `{variable: value}`."""
    training = anchored(training)
    with jax.default_matmul_precision(training.precision):
        return _Run(training).take(record, state)[0]


def variables(training: Training, state: State) -> tuple[dict[str, Variable], ...]:
    """What each record of a training yields: `{variable: Variable}`. Nothing is computed."""
    training = anchored(training)
    run = _Run(training)

    def named(record: Record) -> dict[str, Variable]:
        found = {}
        for name, probe in record.probes.items():
            one = Record(record.at, {name: probe}, record.dim)
            for variable, aval in jax.eval_shape(lambda s, one=one: run.take(one, s)[0], state).items():
                part = variable[len(name) + 1 :]
                found[variable] = Variable(probe, part, aval.shape, aval.dtype)
        return found

    with jax.default_matmul_precision(training.precision):
        return tuple(named(record) for record in training.records)


class _Run:
    """The functions of one training, closed over its parts."""

    def __init__(self, training: Training, apply: Apply | None = None) -> None:
        self.training = training
        self.apply = training.expand(training.model.apply, training.params0) if apply is None else apply
        self.batch_key = batch_key(training.key)

    def on_fixed_data(self) -> "_Run":
        """The same run; where all steps see the same inputs, what the function does with these and the anchor is done here."""
        if self.training.sampler is not full_batch or not hasattr(self.apply, "on"):
            return self
        return _Run(self.training, self.apply.on(self.training.task.x))

    def batch(self, step: Any) -> tuple[Any, Any]:
        return self.training.sampler(self.training.task, self.batch_key, step)

    def snapshot(self, state: State) -> Snapshot:
        training = self.training
        x, y = self.batch(state.step)
        return Snapshot(
            step=state.step,
            params=state.params,
            params0=training.params0,
            task=training.task,
            batch=(x, y),
            batch_loss=training.loss(self.apply(state.params, x), y),
            optimizer_state=state.opt_state,
            apply=self.apply,
            network=training.model.apply,
            loss=training.loss,
        )

    def advance(self, state: State, times: Timetable) -> tuple[State, dict[str, Any]]:
        records = self.training.records
        steady = [i for i, capacity in enumerate(times.capacity) if capacity is None]
        resting = [i for i, capacity in enumerate(times.capacity) if capacity is not None]
        buffers = {i: self._buffers(records[i], state, times.capacity[i]) for i in resting}

        def go_on(state: State, stop: Any) -> State:
            if times.is_unit:
                return self._step(state, state.step < stop)

            def stride(state: State) -> State:
                return jax.lax.fori_loop(0, times.stride, lambda _, s: self._step(s, True), state)

            one = stride if times.stride > 1 else lambda s: self._step(s, True)
            return jax.lax.while_loop(lambda s: s.step < stop, one, state)

        def leg(state: State, stop: Any) -> Any:
            values: dict[str, Any] = {}
            memory = dict(state.memory)
            for i in steady:
                taken, fresh = self.take(records[i], state)
                _add(values, taken)
                memory.update(fresh)
            return go_on(state._replace(memory=memory), stop), values

        def bundle(carry: Any, entry: Any) -> Any:
            state, buffers = carry
            stops, slots = entry
            memory = dict(state.memory)
            for i in resting:
                buffers[i], fresh = self._take_at(records[i], state, buffers[i], slots[i])
                memory.update(fresh)
            state = state._replace(memory=memory)
            state, values = leg(state, stops) if size == 1 else jax.lax.scan(leg, state, stops)
            return (state, buffers), values

        num_legs = len(times.stop)
        size = 1 if num_legs % times.bundle else times.bundle
        stops = jnp.asarray(times.stop).reshape((-1,) if size == 1 else (-1, size))
        entries = (stops, tuple(jnp.asarray(slot)[::size] for slot in times.slots))
        (state, buffers), values = jax.lax.scan(bundle, (state, buffers), entries)
        if size > 1:
            values = jax.tree.map(lambda value: value.reshape(num_legs, *value.shape[2:]), values)
        for i in resting:
            _add(values, buffers[i])
        if not times.is_unit:
            state = jax.lax.cond(state.step == self.training.steps, self._check_end, lambda s: s, state)
        return state, values

    def _step(self, state: State, is_due: Any) -> State:
        """One step of gradient descent, or none where it is not due or the run has diverged."""
        training = self.training
        x, y = self.batch(state.step)

        def loss(params: Any) -> Any:
            return training.loss(self.apply(_tree.completed(params, state.params), x), y)

        moving = _tree.moving(state.params)  # integer leaves are constants
        value, grad = jax.value_and_grad(loss)(moving)
        more = {"value": value, "grad": grad, "value_fn": loss, "grad_fn": lambda params, *_: jax.grad(loss)(params)}
        update = training.optimizer.update
        updates, opt_state = update(grad, state.opt_state, moving, **optimizers.accepted(update, more))
        diverged_at = self._diverged_at(state, value)
        is_live = (diverged_at < 0) & is_due
        # p + (-0) is p, bit for bit; to choose between old and new parameters would read and write them once more
        updates = jax.tree.map(lambda u: jnp.where(is_live, u, jnp.full_like(u, -0.0)), updates)
        return state._replace(
            step=state.step + jnp.asarray(is_due, jnp.int32),
            params=_tree.completed(optax.apply_updates(moving, updates), state.params),
            opt_state=jax.tree.map(lambda new, old: jnp.where(is_live, new, old), opt_state, state.opt_state),
            diverged_at=diverged_at,
        )

    def _diverged_at(self, state: State, value: Any) -> Any:
        is_sound = jnp.isfinite(value) & (value <= self.training.diverge_above)
        return jnp.where((state.diverged_at < 0) & ~is_sound, state.step, state.diverged_at)

    def _check_end(self, state: State) -> State:
        x, y = self.batch(state.step)
        value = self.training.loss(self.apply(state.params, x), y)
        return state._replace(diverged_at=self._diverged_at(state, value))

    def take(self, record: Record, state: State) -> tuple[dict[str, Any], dict[str, Any]]:
        """The values of a record's probes, and the memories that changed."""
        snapshot = self.snapshot(state)
        values: dict[str, Any] = {}
        memory: dict[str, Any] = {}
        for name, probe in record.probes.items():
            if name in state.memory:
                value, memory[name] = probe(snapshot, state.memory[name])
            else:
                value = probe(snapshot)
            parts = value if isinstance(value, dict) else {"": value}
            _add(values, {f"{name}_{part}" if part else name: jnp.asarray(one) for part, one in parts.items()})
        return values, memory

    def _take_at(self, record: Record, state: State, buffer: Any, slot: Any) -> tuple[Any, dict[str, Any]]:
        """The record's buffer with the values written at `slot`, untouched where the slot is -1."""
        kept = {name: state.memory[name] for name in record.probes if name in state.memory}

        def write() -> Any:
            values, memory = self.take(record, state)
            written = jax.tree.map(
                lambda b, v: jax.lax.dynamic_update_index_in_dim(b, v.astype(b.dtype), slot, 0), buffer, values
            )
            return written, {**kept, **memory}

        return jax.lax.cond(slot >= 0, write, lambda: (buffer, kept))

    def _buffers(self, record: Record, state: State, capacity: int | None) -> Any:
        shapes = jax.eval_shape(lambda s: self.take(record, s)[0], state)
        return jax.tree.map(lambda s: jnp.zeros((capacity, *s.shape), s.dtype), shapes)


_BATCHES = 0x62617463  # the stream of minibatches, apart from that of the initialisation


def _add(values: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Put more variables beside those there are."""
    for name, value in more.items():
        if name in values:
            raise ValueError(f"Two probes yield the variable `{name}`; rename one of them.")
        values[name] = value


def _table_at(training: Training, times: Sequence[int]) -> Timetable:
    """A timetable that reaches each of the given times in turn and takes there what is due."""
    reached = np.asarray(times, np.int32)
    stop = np.append(reached, reached[-1:]).astype(np.int32)
    slots = []
    for record in training.records:
        is_due = np.append([False], np.isin(reached, record.at.times(training.steps)))
        slots.append(np.where(is_due, np.cumsum(is_due) - 1, -1).astype(np.int32))
    capacity = tuple(int(slot.max()) + 1 for slot in slots)
    return Timetable(stop, tuple(slots), capacity, is_unit=False, stride=1, bundle=1)


def _check(training: Training) -> None:
    steps = training.steps
    if isinstance(steps, jax.Array):
        raise TypeError("`steps` sets the length of compiled loops, so it is a Python integer: sweep it with `loop=`.")
    if isinstance(steps, bool) or not hasattr(steps, "__index__"):
        raise TypeError(f"`steps` is a whole number, but is {steps!r}.")
    if steps < 0:
        raise ValueError(f"`steps` is at least 0, but is {steps}.")
    if not jnp.issubdtype(getattr(training.key, "dtype", np.dtype(object)), jax.dtypes.prng_key):
        raise TypeError(f"`key` is a typed key such as `jax.random.key(0)`, but is {training.key!r}.")
    optimizers.check(training.optimizer)
    if not hasattr(training.task, "x"):
        raise TypeError(f"`task` is a jaxdyn Task (`jd.tasks.from_arrays(x, y)` makes one), but is {training.task!r}.")
    names: set[str] = set()
    for record in training.records:
        if not isinstance(record, Record):
            raise TypeError(f"`record` is made by `jd.record(schedule, name=probe, …)`, but holds {record!r}.")
        record.at.times(int(steps))
        repeated = names & set(record.probes)
        if repeated:
            raise ValueError(f"The variable `{repeated.pop()}` is recorded twice; give each record names of its own.")
        names |= set(record.probes)
