"""The closed form against solvers that know nothing of it."""

import itertools

import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edits.errors import NonFinite
from edits.method.solver import Rows, basis, respond_to_moments, solve

RIDGE = 0.3


def normal(*shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def problem(n, d_in, d_out, *, seed=0):
    weights = normal(n, seed=seed + 3).abs() + 0.1
    rows = Rows(normal(n, d_in, seed=seed), normal(n, d_out, seed=seed + 1), weights)
    return normal(d_out, d_in, seed=seed + 2), rows


def relative(a, b):
    return float((a - b).norm() / b.norm())


def stacked_least_squares(weight, rows, ridge, preserved=None):
    """D of the objective as one ordinary least-squares problem, one row per term."""
    d_in = weight.shape[1]
    scale = rows.weights.sqrt()[:, None]
    left = [scale * rows.keys, ridge**0.5 * torch.eye(d_in, dtype=torch.float64)]
    right = [scale * (rows.values - rows.keys @ weight.T), torch.zeros_like(weight.T)]
    if preserved is not None:
        left.append(preserved)
        right.append(torch.zeros(len(preserved), weight.shape[0], dtype=torch.float64))
    return torch.linalg.lstsq(torch.cat(left), torch.cat(right)).solution.T


@pytest.mark.parametrize("n", [1, 5, 12, 40])
def test_equals_least_squares_of_the_stacked_system(n):
    weight, rows = problem(n, 12, 7)
    expected = stacked_least_squares(weight, rows, RIDGE)
    assert relative(solve(weight, rows, ridge=RIDGE), expected) < 1e-11


@pytest.mark.parametrize("n", [3, 30])
def test_equals_least_squares_with_preserved_keys(n):
    weight, rows = problem(n, 12, 7)
    preserved = normal(9, 12, seed=8)
    delta = solve(weight, rows, ridge=RIDGE, preserved_gram=preserved.T @ preserved)
    assert relative(delta, stacked_least_squares(weight, rows, RIDGE, preserved)) < 1e-11


def minimise(weight, rows, ridge, preserved, pinned):
    """The objective in words of the edited weight W, minimised by BFGS over the free directions."""
    free = torch.tensor(scipy.linalg.null_space(pinned.numpy()))  # (d_in, free)
    shape = (weight.shape[0], free.shape[1])

    def objective(flat):
        change = torch.tensor(flat, dtype=torch.float64).reshape(shape).requires_grad_()
        edited = weight + change @ free.T
        fit = (rows.weights * (rows.keys @ edited.T - rows.values).square().sum(1)).sum()
        still = (preserved @ (edited - weight).T).square().sum()
        loss = fit + still + ridge * (edited - weight).square().sum()
        loss.backward()
        return loss.item(), change.grad.numpy().ravel()

    found = scipy.optimize.minimize(
        objective, np.zeros(shape[0] * shape[1]), jac=True, method="BFGS", options={"gtol": 1e-10}
    )
    return torch.tensor(found.x).reshape(shape) @ free.T


@pytest.mark.parametrize("n", [2, 10])
def test_equals_an_independent_minimiser_of_the_whole_objective(n):
    weight, rows = problem(n, 6, 4)
    preserved, pinned = normal(3, 6, seed=11), normal(2, 6, seed=12)
    delta = solve(
        weight,
        rows,
        ridge=RIDGE,
        preserved_gram=preserved.T @ preserved,
        pinned=basis(pinned),
    )
    assert relative(delta, minimise(weight, rows, RIDGE, preserved, pinned)) < 1e-6


def test_equals_gradient_descent_without_a_line_search():
    weight, rows = problem(4, 5, 3)
    delta = torch.zeros_like(weight)
    step = 0.5 / float(torch.linalg.eigvalsh((rows.keys.T * rows.weights) @ rows.keys)[-1] + RIDGE)
    for _ in range(4000):
        missed = rows.keys @ (weight + delta).T - rows.values
        gradient = 2 * ((rows.weights[:, None] * missed).T @ rows.keys + RIDGE * delta)
        delta = delta - step * gradient
    assert relative(solve(weight, rows, ridge=RIDGE), delta) < 1e-9


@pytest.mark.parametrize("n", [1, 6, 12])
def test_row_form_equals_feature_form(n):
    """Without preserved keys few rows are solved in rows; a zero Gram matrix asks for features."""
    weight, rows = problem(n, 12, 7)
    pinned = basis(normal(3, 12, seed=5))
    zero = torch.zeros(12, 12, dtype=torch.float64)
    in_rows = solve(weight, rows, ridge=RIDGE, pinned=pinned)
    in_features = solve(weight, rows, ridge=RIDGE, pinned=pinned, preserved_gram=zero)
    assert relative(in_rows, in_features) < 1e-11


def test_parity_formula_is_the_case_without_preserved_and_pinned_keys():
    """W = (l W0 + V K^T)(l I + K K^T)^-1 with keys and values as columns."""
    weight, rows = problem(9, 12, 7)
    K, V, eye = rows.keys.T, rows.values.T, torch.eye(12, dtype=torch.float64)
    expected = (RIDGE * weight + V @ K.T) @ torch.linalg.inv(RIDGE * eye + K @ K.T)
    unweighted = Rows(rows.keys, rows.values, torch.ones(9, dtype=torch.float64))
    assert relative(weight + solve(weight, unweighted, ridge=RIDGE), expected) < 1e-11


def test_no_rows_change_nothing():
    weight, rows = problem(0, 12, 7)
    assert torch.equal(solve(weight, rows, ridge=RIDGE), torch.zeros_like(weight))
    gram = torch.eye(12, dtype=torch.float64)
    assert not solve(weight, rows, ridge=RIDGE, preserved_gram=gram).any()


sizes = st.tuples(st.integers(1, 20), st.integers(2, 10), st.integers(1, 6), st.integers(0, 10**6))


@settings(max_examples=50, deadline=None)
@given(sizes)
def test_rows_without_residual_change_nothing(size):
    n, d_in, d_out, seed = size
    weight, rows = problem(n, d_in, d_out, seed=seed)
    fitted = Rows(rows.keys, rows.keys @ weight.T, rows.weights)
    assert not solve(weight, fitted, ridge=1e-3).any()


@settings(max_examples=50, deadline=None)
@given(sizes)
def test_a_huge_ridge_changes_nothing(size):
    weight, rows = problem(*size[:3], seed=size[3])
    assert float(solve(weight, rows, ridge=1e14).norm()) < 1e-9 * float(weight.norm() + 1)


@settings(max_examples=50, deadline=None)
@given(sizes)
def test_a_larger_ridge_never_makes_a_larger_change(size):
    weight, rows = problem(*size[:3], seed=size[3])
    norms = [float(solve(weight, rows, ridge=r).norm()) for r in (0.01, 0.1, 1.0, 10.0)]
    assert all(b <= a * (1 + 1e-9) for a, b in itertools.pairwise(norms))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 5), st.integers(0, 10**6))
def test_a_tiny_ridge_maps_keys_to_values(n, seed):
    weight, rows = problem(n, 16, 6, seed=seed)
    edited = weight + solve(weight, rows, ridge=1e-10)
    assert relative(rows.keys @ edited.T, rows.values) < 1e-6


@settings(max_examples=50, deadline=None)
@given(sizes, st.integers(1, 8), st.floats(1e-3, 1e3))
def test_pinned_keys_do_not_move(size, pins, size_of_pins):
    n, d_in, d_out, seed = size
    weight, rows = problem(n, d_in, d_out, seed=seed)
    pinned = size_of_pins * normal(pins, d_in, seed=seed + 9)
    gram = rows.keys.T @ rows.keys if seed % 2 else None
    delta = solve(weight, rows, ridge=0.01, preserved_gram=gram, pinned=basis(pinned))
    still = pinned @ weight.T
    assert float((pinned @ delta.T).norm()) < 1e-12 * float(still.norm())


def test_keys_orthogonal_to_the_edited_ones_do_not_move():
    weight, rows = problem(3, 12, 7)
    others = torch.tensor(scipy.linalg.null_space(rows.keys.numpy())).T
    delta = solve(weight, rows, ridge=RIDGE)
    assert float((others @ delta.T).norm()) < 1e-12 * float(delta.norm())


def test_heavy_preserved_keys_barely_move_and_the_edited_key_still_does():
    weight, rows = problem(1, 12, 7)
    preserved = normal(4, 12, seed=21)
    gram = 1e8 * preserved.T @ preserved
    delta = solve(weight, rows, ridge=0.01, preserved_gram=gram)
    assert float((preserved @ delta.T).norm()) < 1e-6 * float((preserved @ weight.T).norm())
    before = (rows.keys @ weight.T - rows.values).norm()
    assert float((rows.keys @ (weight + delta).T - rows.values).norm() / before) < 0.1


def test_a_row_of_weight_two_counts_as_two_rows():
    weight, rows = problem(3, 12, 7)
    twice = Rows(
        torch.cat([rows.keys, rows.keys[:1]]),
        torch.cat([rows.values, rows.values[:1]]),
        torch.ones(4, dtype=torch.float64),
    )
    doubled = Rows(rows.keys, rows.values, torch.tensor([2.0, 1.0, 1.0], dtype=torch.float64))
    one, other = (solve(weight, r, ridge=RIDGE) for r in (twice, doubled))
    assert relative(one, other) < 1e-12


def test_float32_weights_are_solved_in_float64():
    weight, rows = problem(5, 12, 7)
    delta = solve(weight.float(), rows, ridge=RIDGE)
    assert delta.dtype == torch.float64
    assert delta.is_contiguous()
    assert relative(delta, solve(weight.float().double(), rows, ridge=RIDGE)) == 0


def test_no_pinned_keys_and_zeros_span_nothing():
    assert basis(torch.zeros(0, 5, dtype=torch.float64)).shape == (0, 5)
    assert basis(torch.zeros(2, 5, dtype=torch.float64)).shape == (0, 5)


def test_repeated_pinned_keys_take_one_direction_only():
    key = normal(1, 6, seed=1)
    spanned = basis(key.repeat(4, 1))
    assert spanned.shape == (1, 6)
    assert relative((key @ spanned.T) @ spanned, key) < 1e-14


@pytest.mark.parametrize("n", [3, 30])
def test_a_thin_basis_does_what_the_whole_projector_does(n):
    """P G P by the basis against P written out, with rows, and with their sums."""
    weight, rows = problem(n, 12, 7)
    spanned = basis(normal(4, 12, seed=31))
    preserved = normal(9, 12, seed=32)
    whole = torch.eye(12, dtype=torch.float64) - spanned.T @ spanned
    projected = Rows(rows.keys @ whole, rows.values, rows.weights)
    residuals = rows.values - rows.keys @ weight.T
    free = preserved @ whole
    system = (projected.keys.T * rows.weights) @ projected.keys + free.T @ free
    system += RIDGE * torch.eye(12, dtype=torch.float64)
    cross = (residuals.T * rows.weights) @ rows.keys
    expected = torch.linalg.solve(system, whole @ cross.T).T @ whole
    gram = preserved.T @ preserved
    delta = solve(weight, rows, ridge=RIDGE, preserved_gram=gram, pinned=spanned)
    assert relative(delta, expected) < 1e-12
    own = (rows.keys.T * rows.weights) @ rows.keys
    by_sums = respond_to_moments(own, cross, ridge=RIDGE, preserved_gram=gram, pinned=spanned)
    assert relative(by_sums, expected) < 1e-12
    assert float((by_sums @ spanned.T).norm()) < 1e-14 * float(by_sums.norm())


@pytest.mark.parametrize("place", ["keys", "values", "weights"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("n", [3, 30])
def test_non_finite_numbers_are_refused(place, bad, n):
    weight, rows = problem(n, 12, 7)
    getattr(rows, place)[0] = bad
    with pytest.raises(NonFinite, match="ridge") as caught:
        solve(weight, rows, ridge=RIDGE)
    assert caught.value.param == "spec.method.ridge"


def test_a_singular_system_is_refused_not_answered():
    weight, rows = problem(1, 12, 7)
    zero = torch.zeros(12, 12, dtype=torch.float64)
    with pytest.raises(NonFinite, match="positive definite"):
        solve(weight, rows, ridge=0.0, preserved_gram=zero)
