"""Power laws: how fast a quantity falls or grows with the width, with an interval over seeds.

For values y[w, s] > 0 at coordinates x_w (widths) and members s (seeds), the fit is least squares on

    log ȳ_w = log prefactor + exponent · log x_w,      log ȳ_w = mean_s log y[w, s],

ȳ the *geometric* mean over the members. The choice is deliberate: the slope is then exactly the mean of the slopes
fitted to each member alone, so that the members of an ensemble with common random numbers stay paired across widths,
no member outweighs the others (an arithmetic mean follows its largest member, and its logarithm is biased by an amount
that changes with the spread), and the interval is the interval of a plain mean of independent numbers.

The 95 % interval is the studentised (bootstrap-t, equal-tailed) bootstrap: whole members are resampled, the same ones at
all widths. Measured coverage with 8 members (4000 ensembles a case, Monte-Carlo error 0.4 %):

| noise, in each value / on a member's exponent | bootstrap-t | percentile | BCa | Student's t |
|---|---|---|---|---|
| normal | 94.6 / 94.4 % | 88 / 88 % | 88 / 88 % | 95 / 95 % |
| log-exponential | 95.0 / 94.0 % | 89 / 86 % | 88 / 87 % | 96 / 93 % |
| Student's t, 3 degrees of freedom | 94.1 / 93.2 % | 88 / 87 % | 87 / 85 % | 96 / 96 % |
| log-normal | 92.0 / 89.8 % | 86 / 78 % | 83 / 80 % | 96 / 82 % |

Where more than 1.25 % of the resamples would have no spread, as below 5 members (93-97 % with 3 or 4 members, 83 % for log-normal noise on
the exponent) or where most values are equal (accuracies of few images), an end of the bootstrap-t may be infinite, and the interval is
Student's t. `python -m benchmarks coverage` measures what all intervals of `analysis` cover. Within `levels.significance(alpha)` the
interval has the level 1 - alpha, the 1.25 % become alpha/4, and where an end lies too far out for the resamples it is Student's t too.

This is a description of the fitted range, not a proof of a power law: the range is always reported with the exponent.
The interval covers the scatter between members, not the error of fitting a straight line to a curved relation. A claim about an
*asymptotic* exponent takes `asymptotic_power_law`, which fits the leading correction too. The rule is by design, never by what the values
look like: at least 4 coordinates over a factor of 8 or more; a pre-test of the correction on the same data would cost the coverage.

References:
    B. Efron, R. Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 12 (bootstrap-t), 14 (BCa).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxdyn.analysis import levels

if TYPE_CHECKING:
    from xarray import DataArray
else:
    DataArray = Any

NUM_RESAMPLES = 10_000
"""Bootstrap resamples, unless told otherwise: the Monte-Carlo error of an end of the interval is about 1 % of its
length."""

RESAMPLING_SEED = 0
"""Seed of the resampling, fixed: the same data always give the same interval."""

FLAT = 0.5
"""Share of resamples without spread, in units of what lies beyond one end, above which an interval is Student's t."""


class Interval(NamedTuple):
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Fitted:
    """What a power law was fitted to.

    Attributes:
        dim: the dimension of the fit.
        over: the dimension of the members.
        low: smallest coordinate.
        high: largest coordinate.
        num_points: number of coordinates.
        num_members: members that entered the fit; an `int`, or a `DataArray` over the remaining dimensions.
        num_excluded: members left out because one of their values is not finite; likewise.
    """

    dim: str
    over: str
    low: float
    high: float
    num_points: int
    num_members: Any
    num_excluded: Any


@dataclass(frozen=True, eq=False)
class PowerLaw:
    """y = prefactor · x^exponent. Numbers are floats, or `DataArray`s over the dimensions that were not fitted.

    Attributes:
        exponent: the slope of log ȳ against log x; NaN where fewer than 2 members are finite.
        low: lower end of its 95 % interval.
        high: upper end.
        prefactor: of the power: ȳ at x = 1 where there is no correction.
        fitted: what it was fitted to.
        correction: B of the factor exp(B/√x) of `asymptotic_power_law`; 0 of `power_law`.
    """

    exponent: Any
    low: Any
    high: Any
    prefactor: Any
    fitted: Fitted
    correction: Any = 0.0

    def __call__(self, x: Any) -> Any:
        """The fitted curve at `x`.

        Example:
            >>> PowerLaw(-0.5, -0.6, -0.4, 3.0, Fitted("width", "seed", 4.0, 64.0, 5, 8, 0))(9.0)
            1.0
        """
        power = self.prefactor * x**self.exponent
        is_straight = isinstance(self.correction, float) and self.correction == 0.0
        return power if is_straight else power * np.exp(self.correction / np.sqrt(x))

    def __str__(self) -> str:
        fitted = self.fitted
        what = f"{fitted.dim}s {fitted.low:g}–{fitted.high:g} ({fitted.num_points})"
        if not isinstance(self.exponent, float):
            span = f"{float(self.exponent.min()):.2f} to {float(self.exponent.max()):.2f}".replace("-", "−")
            return f"exponents {span} over {', '.join(map(str, self.exponent.dims))}; {what}"
        numbers = f"exponent {self.exponent:.2f} [{self.low:.2f}, {self.high:.2f}]".replace("-", "−")
        excluded = f", {fitted.num_excluded} excluded as not finite" if fitted.num_excluded else ""
        return f"{numbers}, {what}, {fitted.num_members} {fitted.over}s{excluded}"


def power_law(array: DataArray, dim: str, *, over: str, num_resamples: int = NUM_RESAMPLES) -> PowerLaw:
    """Fit y = prefactor · x^exponent, x the coordinate of `dim`, with a 95 % interval over the members of `over`.

    Members with a value that is not finite are left out and counted: mind that leaving out the runs that diverged
    describes the survivors only.

    Args:
        array: positive values, with the dimensions `dim` and `over` and any others; each cell of the others gets its
            own fit.
        dim: dimension of the fit, with a positive numeric coordinate (`width`).
        over: dimension of the independent members (`seed`).
        num_resamples: bootstrap resamples.

    Returns:
        The fit: floats, or `DataArray`s if there are other dimensions.

    Raises:
        ValueError: for a missing dimension or coordinate, fewer than 3 points or 2 members, or values that are not
            positive.

    Example:
        >>> import numpy as np, xarray as xr
        >>> noise = np.exp(0.1 * np.random.default_rng(0).normal(size=(5, 8)))
        >>> width = np.array([32, 64, 128, 256, 512])
        >>> array = xr.DataArray(3 * width[:, None] ** -0.5 * noise, dims=("width", "seed"), coords={"width": width})
        >>> print(power_law(array, "width", over="seed"))
        exponent −0.49 [−0.51, −0.47], widths 32–512 (5), 8 seeds
    """
    return _fit(array, dim, over, num_resamples, is_corrected=False)


def asymptotic_power_law(array: DataArray, dim: str, *, over: str, num_resamples: int = NUM_RESAMPLES) -> PowerLaw:
    """Fit y = prefactor · x^exponent · exp(B/√x), B/√x the leading correction to an asymptotic law, with an interval like `power_law`'s.

    It is linear least squares in log x and 1/√x, so that members stay paired as in `power_law`; exp(B/√x) is 1 + B/√x up to what falls
    like 1/x. For y = x^-0.5 (1 + B/√x) at x = 64 to 1024 by factors of 2 the exponent is off by 0.003 (|B| = 1) and 0.01 (|B| = 2),
    the straight line's by 0.03 and 0.07; the interval is five times as wide. Measured coverage of -0.5 with noise of 10 % in each value
    and 8 or 16 seeds: 95 % for |B| ≤ 2, where a straight line covers 64 and 31 % (B = 1), 20 and 1 % (B = 2).

    Args:
        array: as `power_law` takes it, with at least 4 coordinates over a factor of 8.
        dim: dimension of the fit.
        over: dimension of the independent members.
        num_resamples: bootstrap resamples.

    Returns:
        The fit, with its `correction`.

    Raises:
        ValueError: as `power_law`, and for coordinates that are too few or too close.

    Example:
        >>> import numpy as np, xarray as xr
        >>> width = np.array([32, 64, 128, 256, 512])
        >>> values = (3 * width**-0.5 * np.exp(2 / np.sqrt(width)))[:, None] * np.ones(4)
        >>> fit = asymptotic_power_law(xr.DataArray(values, dims=("width", "seed"), coords={"width": width}), "width", over="seed")
        >>> round(fit.exponent, 6), round(fit.correction, 6), round(fit.prefactor, 6)
        (-0.5, 2.0, 3.0)
    """
    return _fit(array, dim, over, num_resamples, is_corrected=True)


def _fit(array: Any, dim: str, over: str, num_resamples: int, *, is_corrected: bool) -> PowerLaw:
    """Least squares of log y on 1, log x and, with the correction, 1/√x."""
    import xarray as xr

    x = _coordinate(array, dim, over)
    if is_corrected and (len(np.unique(x)) < 4 or x.max() < 8 * x.min()):
        raise ValueError(
            f"An asymptotic law needs at least 4 points over a factor of 8, but `{dim}` is {array[dim].values.tolist()}; "
            "add coordinates, or take `power_law` of the range at hand."
        )
    cells = array.transpose(..., dim, over)
    values = np.asarray(cells.values, dtype=np.float64)
    _check_positive(cells, values)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(values)

    abscissa = np.log(x) - np.log(x).mean()
    is_kept: np.ndarray = np.all(np.isfinite(logs), axis=-2)  # [*cells, s]
    logs = np.where(is_kept[..., None, :], logs, np.nan)
    weights, bends = abscissa / np.sum(abscissa**2), np.zeros_like(abscissa)
    if is_corrected:
        weights, bends = np.linalg.pinv(np.stack([abscissa, x**-0.5 - np.mean(x**-0.5)], axis=1))
    slopes, corrections = (np.einsum("w,...ws->...s", one, logs) for one in (weights, bends))
    offsets = logs.mean(axis=-2) - slopes * np.log(x).mean()
    if is_corrected:
        offsets = offsets - corrections * np.mean(x**-0.5)

    shape = is_kept.shape[:-1]
    found = np.full((5, *shape), np.nan)
    for cell in np.ndindex(*shape):
        kept = is_kept[cell]
        if kept.sum() >= 2:
            level, bend = float(np.exp(offsets[cell][kept].mean())), corrections[cell][kept].mean()
            found[(slice(None), *cell)] = (*mean_interval(slopes[cell][kept], num_resamples=num_resamples), level, bend)

    def labelled(numbers: Any) -> Any:
        if not shape:
            return numbers.item()
        return xr.DataArray(numbers, dims=cells.dims[:-2], coords=cells.isel({dim: 0, over: 0}, drop=True).coords)

    members = is_kept.sum(axis=-1)
    fitted = Fitted(
        dim, over, float(x.min()), float(x.max()), len(x), labelled(members), labelled(is_kept.shape[-1] - members)
    )
    exponent, low, high, prefactor, correction = (labelled(numbers) for numbers in found)
    return PowerLaw(exponent, low, high, prefactor, fitted, correction if is_corrected else 0.0)


def mean_interval(values: Any, *, num_resamples: int = NUM_RESAMPLES) -> Interval:
    """The mean of independent values and its 95 % interval: bootstrap-t, or Student's t for few values or few different ones.

    For ratios, take logarithms first and exponentiate the three numbers. Nothing is left out: a value that is not
    finite makes all three NaN.

    Args:
        values: one number a member, [s].
        num_resamples: bootstrap resamples.

    Returns:
        `(mean, low, high)`.

    Raises:
        ValueError: for anything but a vector of at least 2 values, or fewer than 1000 resamples.

    Example:
        >>> [round(number, 3) for number in mean_interval([1.0, 2.0, 3.0])]
        [2.0, -0.484, 4.484]
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or sample.size < 2:
        raise ValueError(f"An interval needs a vector of at least 2 members, but the values have shape {sample.shape}.")
    if num_resamples < 1000:
        raise ValueError(
            f"`num_resamples` must be at least 1000 for the ends of a 95 % interval, but is {num_resamples}."
        )
    if not np.isfinite(sample).all():
        return Interval(np.nan, np.nan, np.nan)
    mean, spread, size = float(sample.mean()), float(sample.std(ddof=1)), sample.size
    error = spread / np.sqrt(size)
    if error == 0.0:
        return Interval(mean, mean, mean)
    counts = np.unique(sample, return_counts=True)[1]
    tail, num = levels.tail(), levels.resamples(num_resamples)
    if num is None or np.sum((counts / size) ** size) > FLAT * tail:
        reach = levels.student(size - 1) * error
        return Interval(mean, float(mean - reach), float(mean + reach))
    lower, upper = _studentised_quantiles((sample - mean) / spread, num, tail)
    return Interval(mean, float(mean - upper * error), float(mean - lower * error))


def _studentised_quantiles(standardised: np.ndarray, num_resamples: int, tail: float) -> tuple[float, float]:
    """The quantiles `tail` and 1 − `tail` of (mean* - mean) / error* over resamples of the members."""
    size = len(standardised)
    draws = np.random.default_rng(RESAMPLING_SEED).multinomial(size, np.full(size, 1 / size), size=num_resamples)
    means = draws @ standardised / size  # [b]
    variances = (draws @ standardised**2 / size - means**2) * size / (size - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = means / np.sqrt(variances / size)
    t = np.where(variances > 1e-12, t, np.copysign(np.inf, means))  # a resample without spread
    lower, upper = np.quantile(t, [tail, 1 - tail], method="inverted_cdf")
    return float(lower), float(upper)


def _coordinate(array: Any, dim: str, over: str) -> np.ndarray:
    """The positive coordinate of `dim`, after checking what can be checked without the values."""
    for name in (dim, over):
        if name not in array.dims:
            raise ValueError(f"The array has no dimension `{name}`; its dimensions are {tuple(array.dims)}.")
    if dim == over:
        raise ValueError(
            f"`dim` and `over` are both {dim!r}; the fit runs along one dimension and the members along another."
        )
    if dim not in array.coords:
        raise ValueError(
            f"The array has no coordinate for `{dim}`; assign one, such as array.assign_coords({dim}=[…])."
        )
    x = np.asarray(array[dim].values)
    if x.dtype.kind not in "iuf" or not np.all((x > 0) & np.isfinite(x.astype(float))):
        raise ValueError(f"A power law needs positive numbers as the coordinate `{dim}`, but it is {x.tolist()}.")
    if len(np.unique(x)) < 3:
        raise ValueError(f"A power law needs at least 3 points, but `{dim}` is {x.tolist()}.")
    if array.sizes[over] < 2:
        raise ValueError(f"An interval needs at least 2 members, but `{over}` has {array.sizes[over]}.")
    return x.astype(np.float64)


def _check_positive(cells: Any, values: np.ndarray) -> None:
    bad = np.argwhere(np.isfinite(values) & (values <= 0))
    if len(bad):
        place = dict(zip(cells.dims, (int(i) for i in bad[0]), strict=True))
        where = {str(name): cells[name].values[i].item() if name in cells.coords else i for name, i in place.items()}
        raise ValueError(
            f"A power law needs positive values, but {cells.name or 'the array'} is {values[tuple(bad[0])]:g} at "
            f"{where} ({len(bad)} such values). Select the records where it is positive."
        )
