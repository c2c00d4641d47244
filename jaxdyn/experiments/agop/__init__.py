"""Spikes and features: what the batch size, and catapults in gradient descent, do to the AGOP alignment and the test loss.

Two-layer ReLU networks in NTK scaling learn, at one rate η = `rate` · 2/(c λ_max(K_0)) for all batch sizes,

| task | what it is |
|---|---|
| rank-2, rank-3, rank-4 | y = x_1 ⋯ x_r, x ~ N(0, I_d), d the largest with C(d + r − 1, r) ≤ 1.28 n monomials (r = 2, n = 1000: d = 50) |
| digits | scikit-learn's images, even against odd, d = 64; the true AGOP is *estimated*, see below |

Beside stochastic descent, gradient descent with catapults (`dynamics.catapults`): the rate is raised to `jump` · 2/(c λ_max(K_t)) each
time the loss has come below `level`. Without biases the odd part of a two-layer ReLU network is linear, so that x_1 x_2 x_3 needs them:
rank-2 has none, the others have biases of deviation 1.

One run of each batch size answers three questions: what there is after equal steps, after equal epochs, and once the training loss has
stayed below the task's target for an epoch. A spike is what `spikes.find` finds with `RULE`, on the loss of the whole training set at
every step.

The true AGOP of the digits is that of reference networks (two hidden layers, Adam), each trained on all images, test images included, but
one fold of them, on which its error is measured. Each is a possible truth: intervals of the alignment cover the intervals with respect to
every reference, and R says how well they agree.

References:
    Zhu, Liu, Radhakrishnan, Belkin, arXiv 2306.04815. Its numbers could not be read; rule, rates and sizes are ours.
"""
