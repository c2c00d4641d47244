"""Samplers `(task, key, step) -> (x, y)`: which training examples enter a step. Stateless in the step.

`minibatch(b)` walks through the data epoch by epoch without replacement. The stream of examples is the concatenation
π_0(0), …, π_0(n−1), π_1(0), …, π_1(n−1), … of one permutation an epoch, and step t takes the places t b, …, t b + b − 1
of it. So each epoch visits each example exactly once whatever n and b are; when b does not divide n, a batch may take
the end of one epoch and the beginning of the next, and then hold an example twice. A step costs O(b): π_e is never
written down but computed where it is needed, as a keyed bijection of {0, …, n−1}, the swap-or-not shuffle

    for r = 1, …, R:   x' = K_r − x mod n;   x ← x' if B_r(max(x, x')) else x

with K_r uniform and B_r a bit from an integer hash, both keyed by (key, epoch). Each round exchanges some pairs
{x, x'} of the set, hence is a bijection for every n, without a loop whose length depends on the data (as cycle walking
in a Feistel network has: under `vmap` all members wait for the slowest, and an accelerator asks the host when to stop).
A round leaves the distance of two given examples as it is with probability 1/2. All R = ⌈log2 n⌉ + 12 of them do so
with probability 2^-12 / n at most, against the 1/n of chance.

The batches are a function of (key, step, n, b) alone: not of the network, its width, or how an ensemble is executed.
A run that resumes at step t sees what it would have seen. This is a generator of statistical quality, not a cipher.

References:
    V. T. Hoang, B. Morris, P. Rogaway, "An enciphering scheme based on a card shuffle", CRYPTO 2012 (swap-or-not).
"""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Integer, UInt32

from jaxdyn._typing import Key
from jaxdyn.tasks._checks import count
from jaxdyn.tasks.base import Task

_EPOCH, _DRAW = 0x65706F63, 0x64726177  # purposes: the streams of the permutations and of the draws with replacement


def full_batch(task: Task, key: Key, step: Integer[ArrayLike, ""]) -> tuple[Float[Array, "n ..."], Float[Array, "n k"]]:
    """All training examples at every step, in their order; `key` and `step` are not used.

    Args:
        task: n training examples.
        key: unused.
        step: unused.

    Returns:
        `task.x` and `task.y`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxdyn.tasks import from_arrays
        >>> x, y = full_batch(from_arrays(jnp.ones((4, 2)), jnp.ones((4, 1))), jax.random.key(0), 7)
        >>> x.shape, y.shape
        ((4, 2), (4, 1))
    """
    return task.x, task.y


def minibatch(batch_size: int, *, replace: bool = False) -> "Epochs | WithReplacement":
    """Minibatches of a fixed size, epoch by epoch or drawn with replacement.

    Without replacement every epoch is a new permutation of the data (see the module's docstring); with it every step
    draws `batch_size` independent uniform examples. The sampler compares equal to another with equal settings, and
    `key` and `step` may be traced.

    Args:
        batch_size: examples a step, from 1 to n.
        replace: draw independently, so that an example may come twice and an epoch may miss some. `batch_size` may
            then exceed n.

    Returns:
        A `Sampler`: `(task, key, step) -> (x: [batch_size, *d], y: [batch_size, k])`. It raises a `ValueError` for a
        task of fewer than `batch_size` examples.

    Raises:
        ValueError: when `batch_size` is below 1.
        TypeError: when `batch_size` is not an integer.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxdyn.tasks import from_arrays
        >>> task = from_arrays(jnp.arange(6.0)[:, None], jnp.ones((6, 1)))
        >>> sampler, key = minibatch(2), jax.random.key(0)
        >>> epoch = jnp.concatenate([sampler(task, key, step)[0] for step in range(3)])
        >>> sorted(epoch[:, 0].tolist())
        [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    """
    batch_size = count("batch_size", batch_size)
    return WithReplacement(batch_size) if replace else Epochs(batch_size)


@dataclass(frozen=True)
class Epochs:
    """The sampler of `minibatch(b)`: permutations, one an epoch.

    Attributes:
        batch_size: examples a step, b.
    """

    batch_size: int

    def __call__(
        self, task: Task, key: Key, step: Integer[ArrayLike, ""]
    ) -> tuple[Float[Array, "b ..."], Float[Array, "b k"]]:
        """The batch of step `step` of the stream `key`."""
        return _take(task, self.indices(key, step, num_examples=task.x.shape[0]))

    def indices(self, key: Key, step: Integer[ArrayLike, ""], *, num_examples: int) -> Int[Array, " b"]:
        """Which examples the batch of a step holds.

        Args:
            key: the stream; it may be traced.
            step: completed steps t, 0 ≤ t < 2^31; it may be traced.
            num_examples: n.

        Returns:
            b indices in [0, n).

        Raises:
            ValueError: when b > n.
        """
        n, b = num_examples, self.batch_size
        if b > n:
            raise ValueError(
                f"`batch_size` is {b}, but the task has {n} training examples; give at most {n}, use `full_batch`, or "
                f"draw with `minibatch({b}, replace=True)`."
            )
        epoch, offset = locate(step, batch_size=b, num_examples=n)
        stream = jax.random.fold_in(key, _EPOCH)
        place = offset + jnp.arange(b, dtype=jnp.uint32)
        shifts, salts = _rounds(jax.random.fold_in(stream, epoch), n)
        if n % b == 0:  # then no batch reaches into a second epoch
            return _swap_or_not(place, list(zip(shifts, salts, strict=True)), n).astype(jnp.int32)
        is_next = place >= n
        next_shifts, next_salts = _rounds(jax.random.fold_in(stream, epoch + 1), n)
        keys = [
            (jnp.where(is_next, next_shifts[r], shifts[r]), jnp.where(is_next, next_salts[r], salts[r]))
            for r in range(_num_rounds(n))
        ]
        return _swap_or_not(jnp.where(is_next, place - n, place), keys, n).astype(jnp.int32)


@dataclass(frozen=True)
class WithReplacement:
    """The sampler of `minibatch(b, replace=True)`: independent uniform examples.

    Attributes:
        batch_size: examples a step, b.
    """

    batch_size: int

    def __call__(
        self, task: Task, key: Key, step: Integer[ArrayLike, ""]
    ) -> tuple[Float[Array, "b ..."], Float[Array, "b k"]]:
        """The batch of step `step` of the stream `key`."""
        return _take(task, self.indices(key, step, num_examples=task.x.shape[0]))

    def indices(self, key: Key, step: Integer[ArrayLike, ""], *, num_examples: int) -> Int[Array, " b"]:
        """Which examples the batch of a step holds: b uniform draws from [0, n)."""
        stream = jax.random.fold_in(jax.random.fold_in(key, _DRAW), step)
        return jax.random.randint(stream, (self.batch_size,), 0, num_examples, dtype=jnp.int32)


def locate(
    step: Integer[ArrayLike, ""], *, batch_size: int, num_examples: int
) -> tuple[UInt32[Array, ""], UInt32[Array, ""]]:
    """Where the batch of step t begins: the epoch ⌊t b / n⌋ and the place t b mod n in it, without forming t b.

    With g = gcd(b, n) the pattern repeats every n/g steps, after b/g epochs: t = q n/g + s gives the epoch
    q b/g + ⌊s b / n⌋ and the place s b mod n. Where even s b may exceed 32 bits it is built bit by bit of b, reduced
    modulo n at each.

    Args:
        step: t, 0 ≤ t < 2^32; it may be traced.
        batch_size: b, at most n.
        num_examples: n < 2^31.

    Returns:
        The epoch and the place, both exact.

    Example:
        >>> [int(v) for v in locate(2**31 - 1, batch_size=999, num_examples=1000)]
        [2145336163, 353]
    """
    n, b = num_examples, batch_size
    divisor = math.gcd(b, n)
    period = n // divisor
    t = jnp.asarray(step).astype(jnp.uint32)
    q, s = t // period, t % period
    if (period - 1) * b < 2**32:
        turns, place = s * b // n, s * b % n
    else:
        turns, place = jnp.zeros_like(t), jnp.zeros_like(t)
        for bit in bin(b)[2:]:
            turns, place = _reduce(2 * turns, 2 * place, n)
            if bit == "1":
                turns, place = _reduce(turns, place + s, n)
    return q * (b // divisor) + turns, place


def _reduce(turns: Any, place: Any, n: int) -> tuple[Any, Any]:
    """`place` < 2n brought below n, the turn counted."""
    over = place >= n
    return turns + over.astype(jnp.uint32), jnp.where(over, place - n, place)


def _num_rounds(n: int) -> int:
    """The number R of rounds; one example needs none (and XLA's CPU compiler fails on the degenerate rounds)."""
    return (n - 1).bit_length() + 12 if n > 1 else 0


def _rounds(key: Key, n: int) -> tuple[UInt32[Array, " r"], UInt32[Array, " r"]]:
    """The shifts K_r in [0, n) and the salts of the hashes B_r, expanded from 64 bits of `key`."""
    seed = jax.random.bits(key, (2,), jnp.uint32)
    counter = jnp.arange(_num_rounds(n), dtype=jnp.uint32) * jnp.uint32(0x9E3779B9)
    shifts = _hash(_hash(counter + seed[0]) ^ seed[1])
    return shifts % n, _hash(shifts ^ seed[0])


def _swap_or_not(x: UInt32[Array, " b"], keys: list[tuple[Any, Any]], n: int) -> UInt32[Array, " b"]:
    """The image of each place under the permutation of [0, n) with these (shift, salt) of the rounds.

    A barrier after every few rounds keeps XLA from fusing all of them into the gather of the batch, where it computes
    the chain over and again: without it JAX 0.12 did not end compiling in eight minutes.
    """
    for num, (shift, salt) in enumerate(keys, start=1):
        difference = shift - x  # wraps around where it is negative, and is then larger than when n is added
        partner = jnp.minimum(difference, difference + n)
        hashed = (jnp.maximum(x, partner) ^ salt) * jnp.uint32(0x7FEB352D)
        hashed = (hashed ^ (hashed >> 15)) * jnp.uint32(0x846CA68B)
        x = jnp.where(hashed >> 31 == 1, partner, x)  # the uppermost bit
        if num % 4 == 0 or num == len(keys):
            x = jax.lax.optimization_barrier(x)
    return x


def _hash(x: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """An integer hash: multiply and xor-shift, twice; every bit depends on all bits of `x`."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def _take(task: Task, indices: Int[Array, " b"]) -> tuple[Float[Array, "b ..."], Float[Array, "b k"]]:
    def rows(array: Any) -> Any:
        return array.at[indices].get(mode="promise_in_bounds")

    return rows(task.x), rows(task.y)
