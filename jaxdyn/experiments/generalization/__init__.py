"""Test loss against learning rate: networks, their linear and their quadratic models from the same initialisation.

One data set a panel for two-layer ReLU networks under full-batch gradient descent, and on one data set the variants `sgd` (as many steps,
batches of 32), `tanh`, `swish`, `three layers` and `convolution` (two-layer, 3 × 3, flat readout). For every rate
η_rel = η c λ_max(K_0), with K_0 the kernel of the member on all training examples, three models run from one initialisation with the same
batches; what counts is the *best* test loss along the run of a fixed number of steps ("fixed compute"), and the test accuracy where it is
reached. Under gradient descent the linear model is not simulated: `theory.linearized` gives its whole run from one eigendecomposition.
The quadratic model of a two-layer ReLU network is the network with frozen gates.

Data: `digits` (3 or 8) always, `polynomial` (y = x_1 x_2, x ~ N(0, I_10)), and those of `tasks.pictures` where their
files are (`mnist`, `fashion-mnist`, `kmnist`, `cifar-2`, `svhn`, `fsdd`, `ag_news`), two classes each; the others are left out, which
the attribute `left_out` and the summary say; the attribute `data` says what each was made into. Data are fixed: intervals are over
initialisations (and batches).

Below 2 a rate is sub-critical, above super-critical. Of each kind the best rate is chosen for a seed by the geometric mean of the *other*
seeds, so that the number of rates tried favours neither. Test losses are compared by geometric means over seeds.

For C6.3 the accuracies are those at the least test loss, and the rates those of the best mean accuracy.

References:
    Zhu, Liu, Radhakrishnan, Belkin, arXiv 2205.11787, figures 2(b), 4, 9 and 10. Lewkowycz et al., arXiv 2003.02218, figure 3.
"""
