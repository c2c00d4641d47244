"""Eigenvalues against dense decompositions, on spectra that make Lanczos lie."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdyn.geometry import spectrum

DIM = 300


def matrix_with(values, seed=0):
    """A dense symmetric matrix with these eigenvalues, and its vectors."""
    rng = np.random.default_rng(seed)
    vectors, _ = np.linalg.qr(rng.standard_normal((len(values), len(values))))
    return jnp.asarray((vectors * values) @ vectors.T), vectors


def bulk(size, low=0.0, high=1.0):
    return np.linspace(low, high, size)


SPECTRA = {
    "spread": np.random.default_rng(1).standard_normal(DIM),
    "clustered": np.r_[2 + 1e-5 * np.arange(4), bulk(DIM - 4)],
    "degenerate": np.r_[[5.0] * 4, [4.0] * 2, bulk(DIM - 6)],
    "negative-dominant": np.r_[bulk(200, -50, -1), 0.1 * bulk(95), 1.0, 1.2, 1.5, 2.0, 2.5],
    "all negative": np.r_[bulk(DIM - 5, -9, -3), -0.5, -0.4, -0.3, -0.2, -0.1],
    "low rank": np.r_[[3.0, 2.0], np.zeros(DIM - 2)],
    "negative low rank": np.r_[[-3.0, -2.0], np.zeros(DIM - 2)],
    "symmetric pairs": np.r_[[3.0, -3.0, 2.0, -2.0, 1.5], 0.5 * bulk(DIM - 5, -1, 1)],
    "zero": np.zeros(DIM),
    "multiple of the identity": np.full(DIM, 7.0),
}
ENDS = {
    spectrum.top: lambda values: np.sort(values)[::-1],
    spectrum.bottom: np.sort,
    spectrum.dominant: lambda values: np.sort(np.abs(values))[::-1],
}


@functools.cache
def exact_solver(end, num):
    """One compilation for all spectra."""
    return jax.jit(
        lambda m: end(lambda v: m @ v, dim=DIM, num=num, key=jax.random.key(3), tolerance=1e-10, max_matvecs=3000)
    )


@functools.cache
def single_solver(num):
    return jax.jit(lambda m, key: spectrum.top(lambda v: m @ v, dim=DIM, num=num, key=key, max_matvecs=2000))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
@pytest.mark.parametrize("num", [1, 4])
def test_values_are_those_of_the_dense_decomposition(name, end, num):
    values = SPECTRA[name]
    matrix, _ = matrix_with(values)
    found = exact_solver(end, num)(matrix)
    expected = ENDS[end](values)[:num]
    got = np.abs(found.values) if end is spectrum.dominant else found.values
    assert found.converged.all()
    np.testing.assert_allclose(got, expected, atol=1e-9 * max(1.0, np.abs(values).max()))
    vectors = np.asarray(found.vectors)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(num), atol=1e-8)
    residuals = np.linalg.norm(np.asarray(matrix) @ vectors - vectors * np.asarray(found.values), axis=0)
    np.testing.assert_allclose(found.residuals, residuals, atol=1e-12 * max(1.0, np.abs(values).max()))


@pytest.mark.parametrize("name", ["spread", "clustered", "degenerate", "negative-dominant", "symmetric pairs"])
def test_single_precision_never_flags_a_wrong_value(name):
    values = SPECTRA[name]
    matrix = matrix_with(values)[0].astype(jnp.float32)
    expected = np.sort(values)[::-1][:4]
    for seed in range(4):
        found = single_solver(4)(matrix, jax.random.key(seed))
        assert found.converged.all()
        np.testing.assert_allclose(found.values, expected, rtol=1e-3)


@pytest.mark.parametrize("budget", [15, 20, 30, 45, 60])
def test_a_value_short_of_budget_is_flagged(budget):
    values = bulk(1000, -1.0, 1.0)  # gaps of 0.2 %: hopeless in 60 products
    diagonal = jnp.asarray(values, jnp.float32)
    found = spectrum.top(
        lambda v: diagonal * v, dim=1000, num=4, key=jax.random.key(0), max_matvecs=budget, tolerance=1e-4
    )
    assert not found.converged.any()
    assert found.num_matvecs <= budget
    assert (np.asarray(found.residuals) > 1e-4).all()


WIDE = np.r_[
    1e4, bulk(398, 0.0, 0.02), -0.05
]  # the bottom is 5e-6 of the norm, forty roundings of a product in float32


@pytest.mark.parametrize("is_diagonal", [True, False])
def test_a_flag_at_the_small_end_is_relative_to_the_value_itself(is_diagonal):
    matrix = jnp.diag(jnp.asarray(WIDE, jnp.float32)) if is_diagonal else matrix_with(WIDE)[0].astype(jnp.float32)
    flags = []
    for tolerance in (0.1, 1e-6):
        solve = jax.jit(
            lambda key, t=tolerance: spectrum.bottom(lambda v: matrix @ v, dim=400, num=1, key=key, tolerance=t)
        )
        for seed in range(4):
            found = solve(jax.random.key(seed))
            np.testing.assert_allclose(found.values, [-0.05], rtol=1e-3)
            assert not found.converged or found.residuals <= tolerance * 0.05
            flags.append(bool(found.converged[0]))
    assert flags == [True] * 4 + [False] * 4  # products in float32 leave residuals of about 0.5 % here


@pytest.mark.usefixtures("x64")
def test_a_smaller_tolerance_makes_the_small_end_more_exact():
    matrix, vectors = matrix_with(WIDE)
    solve = functools.partial(spectrum.bottom, lambda v: matrix @ v, dim=400, num=1, key=jax.random.key(0))
    coarse, fine = solve(tolerance=1e-1), solve(tolerance=1e-9)
    assert coarse.converged
    assert fine.converged
    assert fine.num_matvecs > coarse.num_matvecs
    np.testing.assert_allclose(fine.values, [-0.05], rtol=1e-9)
    np.testing.assert_allclose(jnp.abs(vectors[:, -1] @ fine.vectors), 1.0, rtol=1e-9)


@pytest.mark.parametrize("scale", [2.0**-66, 2.0**60, 2.0**110])
@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
@pytest.mark.parametrize("dim", [20, 300])
def test_the_scale_of_a_matrix_changes_nothing(scale, end, dim):
    matrix = matrix_with(SPECTRA["symmetric pairs"][:dim])[0].astype(jnp.float32)
    solve = jax.jit(lambda m: end(lambda v: m @ v, dim=dim, num=2, key=jax.random.key(0)))
    found, scaled = solve(matrix), solve(scale * matrix)
    assert found.converged.all()
    for name in ("values", "residuals"):
        np.testing.assert_array_equal(getattr(scaled, name), scale * getattr(found, name))
    for name in ("vectors", "converged", "num_matvecs", "guards"):
        np.testing.assert_array_equal(getattr(scaled, name), getattr(found, name))


@pytest.mark.parametrize("scale", [2.0**-100, 2.0**110])
def test_the_scale_of_a_matrix_scales_its_density(scale):
    matrix = matrix_with(SPECTRA["spread"])[0].astype(jnp.float32)
    find = jax.jit(
        lambda m: spectrum.density(lambda v: m @ v, dim=DIM, num_matvecs=9, num_probes=2, key=jax.random.key(0))
    )
    found, scaled = find(matrix), find(scale * matrix)
    np.testing.assert_allclose(scaled.nodes / scale, found.nodes, rtol=1e-4)
    np.testing.assert_allclose(scaled.weights, found.weights, rtol=1e-3)


def test_no_flag_is_up_while_the_guard_may_hide_a_larger_value():
    diagonal = jnp.asarray(np.r_[1.0, 0.99, 0.98 * np.cos(bulk(998, 0.0, np.pi))], jnp.float32)
    guess = jnp.eye(1000, 1, k=-1)  # exactly the second eigenvector: its residual is zero
    found = spectrum.top(lambda v: diagonal * v, dim=1000, num=1, key=jax.random.key(0), guess=guess, max_matvecs=5)
    np.testing.assert_allclose(found.values, [0.99], rtol=1e-5)
    assert found.residuals < 1e-5
    assert not found.converged.any()


def test_products_in_half_precision_are_judged_by_their_own_rounding():
    matrix = matrix_with(SPECTRA["spread"])[0].astype(jnp.bfloat16)
    solve = functools.partial(
        spectrum.top, lambda v: matrix @ v, dim=DIM, num=1, key=jax.random.key(0), dtype="bfloat16"
    )
    expected = np.linalg.eigvalsh(np.asarray(matrix, float))[-1]
    for tolerance in (3e-2, 1e-3):
        found = solve(tolerance=tolerance)
        np.testing.assert_allclose(found.values, expected, rtol=1e-2)
        assert found.converged.tolist() == [tolerance > 1e-2]
    assert found.vectors.dtype == jnp.float32


def test_number_of_products_is_the_number_of_calls():
    calls = []
    diagonal = jnp.asarray(np.r_[[9.0, 8.0, 7.0], bulk(197)], jnp.float32)

    def matvec(v):
        jax.debug.callback(lambda _: calls.append(1), v[0])
        return diagonal * v

    found = spectrum.top(matvec, dim=200, num=2, key=jax.random.key(0))
    jax.effects_barrier()
    assert len(calls) == int(found.num_matvecs)


@pytest.mark.parametrize("dim", [1, 2, 5, 30])
def test_small_matrices_are_decomposed_whole(dim):
    values = np.random.default_rng(0).standard_normal(dim)
    matrix = matrix_with(values)[0].astype(jnp.float32)
    num = min(dim, 3)
    found = spectrum.top(lambda v: matrix @ v, dim=dim, num=num, key=jax.random.key(0))
    np.testing.assert_allclose(found.values, np.sort(values)[::-1][:num], atol=1e-5)
    assert found.converged.all()
    assert found.num_matvecs == dim


@pytest.mark.parametrize("dim", [20, 400])
def test_nan_products_give_nan_and_no_flag(dim):
    found = jax.jit(lambda: spectrum.top(lambda v: v * jnp.nan, dim=dim, num=2, key=jax.random.key(0)))()
    assert np.isnan(found.values).all()
    assert not found.converged.any()
    assert found.num_matvecs <= 400


def test_a_warm_start_spends_few_products():
    values = np.r_[[9.0, 8.5, 8.2, 8.0, 7.9], 6 * bulk(DIM - 5)]
    matrix, _ = matrix_with(values)
    noise = np.random.default_rng(5).standard_normal((DIM, DIM))
    moved = (matrix + jnp.asarray(1e-4 * (noise + noise.T))).astype(jnp.float32)
    solve = jax.jit(lambda m, guess: spectrum.top(lambda v: m @ v, dim=DIM, num=4, key=jax.random.key(0), guess=guess))
    before = spectrum.top(lambda v: matrix.astype(jnp.float32) @ v, dim=DIM, num=4, key=jax.random.key(0))
    cold, warm = solve(moved, None), solve(moved, before)
    assert warm.converged.all()
    np.testing.assert_allclose(warm.values, np.linalg.eigvalsh(np.asarray(moved))[::-1][:4], rtol=1e-4)
    assert int(warm.num_matvecs) <= int(cold.num_matvecs) / 3


def test_a_travelling_guard_catches_an_eigenvalue_that_overtakes():
    vectors = matrix_with(np.arange(DIM))[1].astype(np.float32)
    base = np.r_[[1.0, 0.9], 0.5 * bulk(DIM - 2)]
    swapped = np.r_[[0.9, 1.0], 0.5 * bulk(DIM - 2)]
    first, second = (jnp.asarray((vectors * values) @ vectors.T, jnp.float32) for values in (base, swapped))
    before = spectrum.top(lambda v: first @ v, dim=DIM, num=1, key=jax.random.key(0), tolerance=1e-5)
    after = spectrum.top(lambda v: second @ v, dim=DIM, num=1, key=jax.random.key(0), guess=before)
    np.testing.assert_allclose(after.values, [1.0], rtol=1e-5)
    assert after.converged.all()


@pytest.mark.parametrize("content", [0.0, np.nan])
def test_an_empty_guess_is_a_cold_start(content):
    diagonal = jnp.asarray(np.r_[[9.0, 8.0], bulk(298)], jnp.float32)
    guess = jnp.full((DIM, 2), content, jnp.float32)
    found = spectrum.top(lambda v: diagonal * v, dim=DIM, num=2, key=jax.random.key(0), guess=guess)
    np.testing.assert_allclose(found.values, [9.0, 8.0], rtol=1e-4)


def test_members_of_a_vmap_equal_themselves_alone():
    matrices = jnp.stack([matrix_with(SPECTRA[name])[0] for name in ("spread", "degenerate", "low rank")])
    matrices = matrices.astype(jnp.float32)
    solve = lambda m: spectrum.top(lambda v: m @ v, dim=DIM, num=2, key=jax.random.key(0))  # noqa: E731
    together = jax.jit(jax.vmap(solve))(matrices)
    for i, matrix in enumerate(matrices):
        alone = jax.jit(solve)(matrix)
        np.testing.assert_allclose(together.values[i], alone.values, rtol=1e-5)
        assert together.converged[i].all()
        assert together.num_matvecs[i] == alone.num_matvecs


def test_a_nan_member_leaves_its_neighbours_alone():
    good = matrix_with(SPECTRA["degenerate"])[0].astype(jnp.float32)
    matrices = jnp.stack([good, good.at[0, 0].set(jnp.nan), good])
    found = jax.jit(jax.vmap(lambda m: spectrum.top(lambda v: m @ v, dim=DIM, num=2, key=jax.random.key(0))))(matrices)
    np.testing.assert_allclose(found.values[jnp.array([0, 2])], 5.0, rtol=1e-5)
    assert np.isnan(found.values[1]).all()
    assert found.converged.tolist() == [[True, True], [False, False], [True, True]]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"num": 5}, r"\[1, dim=4\]"),
        ({"num": 0}, r"\[1, dim=4\]"),
        ({"tolerance": -1.0}, "negative"),
        ({"guess": jnp.ones((3, 1))}, r"dim=4"),
        ({"dim": 500, "max_matvecs": 3}, "max_matvecs=3"),
    ],
)
def test_bad_arguments_are_named(change, match):
    arguments = {"dim": 4, "num": 1, "key": jax.random.key(0)} | change
    with pytest.raises(ValueError, match=match):
        spectrum.top(lambda v: v, **arguments)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["spread", "degenerate", "low rank", "zero", "multiple of the identity"])
def test_density_has_the_moments_of_the_spectrum(name):
    values = SPECTRA[name]
    matrix, _ = matrix_with(values)
    found = spectrum.density(lambda v: matrix @ v, dim=DIM, num_matvecs=12, num_probes=20, key=jax.random.key(0))
    np.testing.assert_allclose(found.weights.sum(axis=1), 1.0, rtol=1e-12)
    for power in (1, 2, 3):
        mean, error = found.mean(lambda value, p=power: value**p)
        assert abs(mean - np.mean(values**power)) <= 5 * error + 1e-10


@pytest.mark.usefixtures("x64")
def test_density_of_a_probe_is_its_exact_quadrature():
    values = SPECTRA["spread"][:8]
    matrix, vectors = matrix_with(values)
    found = spectrum.density(lambda v: matrix @ v, dim=8, num_matvecs=8, num_probes=1, key=jax.random.key(0))
    order = np.argsort(found.nodes[0])
    np.testing.assert_allclose(found.nodes[0][order], np.sort(values), atol=1e-10)
    np.testing.assert_allclose(spectrum.dense(lambda v: matrix @ v, dim=8), matrix, atol=1e-14)
    assert vectors.shape == (8, 8)


@pytest.mark.usefixtures("x64")
def test_smoothed_density_integrates_to_one():
    matrix, _ = matrix_with(SPECTRA["spread"])
    found = spectrum.density(lambda v: matrix @ v, dim=DIM, num_matvecs=20, num_probes=3, key=jax.random.key(0))
    grid = jnp.linspace(-8, 8, 2001)
    np.testing.assert_allclose(jnp.trapezoid(found.smooth(grid, width=0.2), grid), 1.0, atol=1e-6)


@pytest.mark.parametrize("change", [{"num_matvecs": 9}, {"num_matvecs": 0}, {"num_probes": 0}])
def test_density_names_bad_arguments(change):
    arguments = {"dim": 8, "num_matvecs": 3, "num_probes": 1} | change
    with pytest.raises(ValueError, match=next(iter(change))):
        spectrum.density(lambda v: v, key=jax.random.key(0), **arguments)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["spread", "clustered", "negative-dominant", "all negative", "symmetric pairs"])
@pytest.mark.parametrize("block", [1, 2])
def test_a_small_block_finds_simple_eigenvalues_for_fewer_products(name, block):
    values = SPECTRA[name]
    matrix, _ = matrix_with(values)
    solve = functools.partial(spectrum.top, lambda v: matrix @ v, dim=DIM, num=4, key=jax.random.key(3), tolerance=1e-8)
    found, whole = solve(block=block, max_matvecs=3000), solve(max_matvecs=3000)
    assert found.converged.all()
    np.testing.assert_allclose(found.values, np.sort(values)[::-1][:4], atol=1e-9 * np.abs(values).max())
    assert found.num_matvecs < whole.num_matvecs


@pytest.mark.usefixtures("x64")
def test_a_small_block_that_exhausts_its_space_does_not_flag_what_it_has_not_found():
    matrix, _ = matrix_with(SPECTRA["low rank"])  # the Krylov space of one vector has three dimensions
    found = spectrum.top(lambda v: matrix @ v, dim=DIM, num=4, key=jax.random.key(3), block=1, max_matvecs=400)
    wrong = np.abs(np.asarray(found.values) - np.r_[3.0, 2.0, 0.0, 0.0]) > 1e-3
    assert not (np.asarray(found.converged) & wrong).any()
