"""Spikes of the training loss as catapults: where they live, which batches make them, and what forced ones do to features and test loss.

Two-layer ReLU networks in NTK scaling learn y = x_1 x_2, x ~ N(0, I_d), with the loss (1/n) Σ (f − y)²; every seed has its own data,
initialisation and batches. η_crit = 2/(c λ_max(K_0)) is the critical rate of the whole training set.

| descent | what it is | examples |
|---|---|---|
| catapult | gradient descent at η = `high` η_crit | `num_train` |
| forced 0, … | gradient descent at `low` η_crit, raised so often to `jump` times the critical rate of the moment | `num_train` |
| b=… | stochastic descent at η = η_crit | `num_train` |
| rare b=… | the same with few super-critical batches: η = `margin` times a quantile, `share`, of η_crit(X_b) at w_0 | `many` |

**Where.** Of `catapult`, the last `forced` and `b=…` the kernel is followed at every step: the loss in the span of its s leading
eigenvectors, s in `SUBSPACES`, and λ_max(K). A spike is what `spikes.find` finds with `RULE`. Its floor is 1e-3, not 0.02 as in `agop`:
there is no noise to interpolate, and all spikes down to there are catapults as well.

**Which batches.** Of `rare b=…` every step is an event: ρ = η/η_crit(X_b), and how much the training loss and the loss of the batch itself
grow in that step. The *placebo* shuffles ρ among the steps of a block of `BLOCK`: it keeps what ρ and the loss have in common because
both drift along a run, and loses what they have because a batch made its step. What a super-critical batch does is the excess over it.

**What for.** A raise of `forced` lasts at most `patience` steps (`dynamics.catapults`), after which the rate falls below the critical
one, so that no descent stalls; test loss and AGOP alignment are read off where the training loss, after the last raise, comes down to
`target`, equal for all.

Trials with seeds from 900 on settled two numbers; only shares of super-critical batches, numbers of spikes and jumps and the steps to
the target were looked at. `jump` is 1.2, since 1.4 killed networks at the third raise. `margin` and `share` are 0.89 and 0.05, since
λ_max(K) rises by 7 % from its initial value, its scatter among batches with it, and in a whole run 20 % of the batches were
super-critical at 0.70 η_crit (b = 32) and 0.79 (b = 64), where that quantile was 0.79 and 0.88. Sizes and criteria were committed
before the first other run. Presets begin at seeds 50, 100 and 200, since the numbers that led to this design were of seeds from 0 on.

References:
    Zhu, Liu, Radhakrishnan, Belkin, arXiv 2306.04815. Its numbers could not be read; rule, rates and sizes are ours.
"""
