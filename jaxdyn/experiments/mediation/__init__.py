"""Does AGOP alignment mediate what spikes do to the test loss? A regression, and two interventions.

y = x_1 x_2 with x ~ N(0, I_d) and n = 20 d examples, fresh for every seed; a ReLU network with one hidden layer in NTK scaling;
L = (1/n) Σ (f − y)². Every arm starts at the rate η = `ratio` times the critical one, 2/(c λ_max(K_0)), and is judged where its loss on the
whole training set first reaches `level` (`analysis.crossings`), so that all have learned the training set equally well.

| arm | what it is |
|---|---|
| b = … | SGD at η with batches of b, up to all n examples: the observations |
| capped b = … | the same, but each step at min(η, 0.9 η_crit(X_b, w_t)): no step is super-critical for its own batch |
| slow b = … | the same at a constant rate, η times the mean of that cap over 64 batches at w_0: the control for the lower rate |
| forced … | all n examples, with the rate raised to 1.4 times the critical one whenever the loss has come down to 0.2, so many times |

Spikes are counted on the full training loss at every step until the crossing: factor 2, window 30, floor 0.02, rearm 1.1
(`analysis.spikes`). Of a run: y = log test loss, s = log(1 + spikes), a = −log(1 − alignment), the alignment with the AGOP of the true
target at the test inputs; a is taken because alignments crowd below 1. Observations have their seed's mean over the batch sizes
subtracted, since seeds have their own data. M3 and M4 are differences within seeds, of the seeds where both arms reach the level; the
note of the verdict says how many.

The cap is not the end of all spikes: a step that is sub-critical for its own batch may raise the loss of the other examples.

Gess and Heydecker (arXiv 2603.10079) give an explicit criterion, the sign of a function G of kernel, rate and data, for SGD in this scaling
to spike with high probability. Only the abstract could be read, which does not state G; nothing here compares with it.

References:
    Zhu, Liu, Radhakrishnan, Belkin, arXiv 2306.04815 (the chain from spikes through alignment to test loss; the tests of it are ours).
"""
