"""Spikes of the training loss as catapults: where they live, what precedes them, and what they do to the kernel.

Networks in NTK scaling (ReLU, one output) learn two classes of scikit-learn's digits with the loss (1/n) Σ (f − y)². With the
critical rate 2/(c λ_max(K_0)) of each member, there are these ways down:

| descent | what it is |
|---|---|
| catapult | gradient descent at `high` times the critical rate |
| raised | gradient descent at `rate` times it, raised to `jump` times that of the moment when the loss is down (`dynamics.catapults`) |
| b=… | minibatches, at `rate` times it |

At every step: the loss, its parts in the span of the s leading eigenvectors of the *current* kernel, s in `SUBSPACES`, λ_max(K_t), and
the critical rate of the batch that enters next. A spike is what `spikes.find` finds with `RULE` on the loss of the whole training set.

References:
    Zhu, Liu, Radhakrishnan, Belkin, arXiv 2306.04815. Its numbers could not be read; rule, rates and sizes are ours.
"""
