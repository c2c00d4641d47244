"""What a planned sweep would cost on an accelerator that is not here: device-hours from counts and published peak rates.

A step of all members of a block takes, at least,

    max(flops / (efficiency · rate), bytes / bandwidth, launch),

with flops and bytes as XLA counts them and `launch` the time a step costs however small it is. Rates are those of float32 at
matmul precision "highest": without TF32 on GPUs, in six bfloat16 passes on TPUs. It is a budget, not a measurement: the efficiency
is assumed and shown, loops inside probes count once, and compilation is left out. Bytes are counted as if nothing were fused, which is
more than is moved, so they are taken at the peak bandwidth. Half the peak rate, and this rule, foretell the three ensembles that
`benchmarks accelerator` trained on an H100 on 2026-11-27 within a factor of 1.5.

References:
    Rates, bandwidths and memory: data sheets of NVIDIA V100, T4, A100, L4, RTX 4090, H100 SXM and H200 SXM, and Google Cloud's pages of
    TPU v4, v5e, v5p and v6e (peak bfloat16, divided by six).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from jaxdyn.ensemble.deciding.cells import Plan
from jaxdyn.ensemble.deciding.memory import SHARE, of_member

LAUNCH = 5e-5
"""Seconds that a step costs however small it is, as assumed: about twenty kernels."""


@dataclass(frozen=True)
class Accelerator:
    """Published peaks of one device.

    Attributes:
        name: its name.
        rate: flops a second in float32 at full precision.
        bandwidth: bytes a second of its memory.
        memory: bytes of its memory.
    """

    name: str
    rate: float
    bandwidth: float
    memory: float


def _of(name: str, teraflops: float, terabytes: float, gigabytes: float | int) -> tuple[str, Accelerator]:
    return name, Accelerator(name, teraflops * 1e12, terabytes * 1e12, gigabytes * 1e9)


ACCELERATORS: Mapping[str, Accelerator] = dict(
    [
        _of("V100", 15.7, 0.90, 32),
        _of("T4", 8.1, 0.32, 16),
        _of("A100", 19.5, 2.04, 80),
        _of("L4", 30.3, 0.30, 24),
        _of("RTX4090", 82.6, 1.01, 24),
        _of("H100", 67.0, 3.35, 80),
        _of("H200", 67.0, 4.80, 141),
        _of("TPUv4", 275 / 6, 1.23, 32),
        _of("TPUv5e", 197 / 6, 0.82, 16),
        _of("TPUv5p", 459 / 6, 2.77, 95),
        _of("TPUv6e", 918 / 6, 1.64, 32),
    ]
)
"""Devices by name."""


def named(name: str) -> Accelerator:
    """A device by its name in `ACCELERATORS`.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in ACCELERATORS:
        raise ValueError(
            f"No published rates of {name!r} here; known are {', '.join(ACCELERATORS)}. Give an "
            "`ensemble.Accelerator(name, rate, bandwidth, memory)` of your own."
        )
    return ACCELERATORS[name]


@dataclass(frozen=True)
class Budget:
    """What a sweep would cost on some devices.

    Attributes:
        accelerator: the device.
        count: how many.
        efficiency: the share of the published peak rate that was assumed.
        flops: floating-point operations of training and of probes.
        seconds: of the whole sweep, compilation apart.
        bound: seconds spent in steps bound by `flops`, by `bytes` and by `launch`.
        blocks: in how many turns the members run, because they do not fit together.
    """

    accelerator: Accelerator
    count: int
    efficiency: float | int
    flops: float
    seconds: float
    bound: Mapping[str, float]
    blocks: int

    @property
    def device_hours(self) -> float:
        """Hours times devices."""
        return self.seconds * self.count / 3600

    def __str__(self) -> str:
        one = self.accelerator
        shares = ", ".join(f"{value / max(self.seconds, 1e-12):.0%} {name}" for name, value in self.bound.items())
        return (
            f"{self.count} × {one.name} ({one.rate / 1e12:.3g} TFLOP/s float32 at full precision, {one.bandwidth / 1e12:.3g} TB/s, "
            f"{one.memory / 1e9:.0f} GB), efficiency assumed {self.efficiency:.0%}: {self.flops:.2g} flops, {_duration(self.seconds)}, "
            f"{self.device_hours:.3g} device-hours, compilation apart; bound by {shares}; "
            f"{'all members of a cell together' if self.blocks == 1 else f'members in up to {self.blocks} turns'}"
        )


def budget(plan: Plan, accelerator: str | Accelerator, *, count: int = 1, efficiency: float | int = 0.5) -> Budget:
    """What a planned sweep would cost elsewhere. Probes are traced to count them; nothing is compiled or run.

    Args:
        plan: what `jd.ensemble.plan` returned.
        accelerator: a name in `ACCELERATORS`, or an `Accelerator` of your own.
        count: how many devices share the members.
        efficiency: share of the published peak rate that is reached, in (0, 1].

    Raises:
        ValueError: for an unknown name, a count below 1 or an efficiency outside (0, 1].

    Example:
        >>> import jax, optax, numpy as np, jax.numpy as jnp, jaxdyn as jd
        >>> task = jd.tasks.polynomial(jax.random.key(0), degree=1, dim=3, n=8)
        >>> def run(seed):
        ...     model = jd.models.mlp((3, 16, 1), activation=jnp.tanh)
        ...     return jd.Training(model, task, optax.sgd(0.1), steps=1000, key=jax.random.key(seed))
        >>> found = budget(jd.ensemble.plan(run, vmap={"seed": np.arange(64)}), "H100")
        >>> round(found.seconds, 3), found.bound["launch"] == found.seconds  # too small to be bound by anything else
        (0.05, True)
    """
    device = accelerator if isinstance(accelerator, Accelerator) else named(accelerator)
    if count < 1:
        raise ValueError(f"`count` is at least 1, but is {count}.")
    if not 0 < efficiency <= 1:
        raise ValueError(f"`efficiency` is a share in (0, 1], but is {efficiency}.")
    bound = {"flops": 0.0, "bytes": 0.0, "launch": 0.0}
    flops, most = 0.0, 1
    for cell in plan.cells:
        here = -(-cell.num_members // count)
        together = max(1, int(SHARE * device.memory / max(of_member(cell.step, cell.records), 1)))
        turns = -(-here // together)
        most = max(most, turns)
        observed = zip(cell.records, plan.observation(cell), strict=True)
        work = [(cell.steps, cell.step.flops, cell.step.touched), *((len(at), *one) for (_, at, _), one in observed)]
        for times, step_flops, step_bytes in work:  # of one member: its steps, and each record
            flops += times * step_flops * cell.num_members
            prices = {
                "flops": here * step_flops / (efficiency * device.rate),
                "bytes": here * step_bytes / device.bandwidth,
                "launch": turns * LAUNCH,
            }
            dearest = max(prices, key=lambda name: prices[name])
            bound[dearest] += times * prices[dearest]
    return Budget(device, count, efficiency, flops, sum(bound.values()), bound, most)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"
