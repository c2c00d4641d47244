"""Across optimizers, does AGOP alignment rank the test loss?

y = x_1 x_2 with x ~ N(0, I_d) and n = 20 d examples, fresh for every seed; a ReLU network with one hidden layer in NTK scaling;
minibatches; L = (1/n) Σ (f − y)². Eight optimizers, all at their defaults in optax but for the rate (and lion's weight decay, 0):

| optimizer | largest rate of its grid |
|---|---|
| sgd, momentum (0.9) | 3 and 1 times the critical rate 2/(c λ_max(K_0)) |
| rmsprop, adam | 0.1 |
| adagrad | 1 |
| adadelta | 10 |
| lion, muon | 0.03, 1 |

The first six are those of the paper as far as is known. Lion (sign of a momentum) and muon (momentum with all singular values set to
one) are newer, and each measures steps in a norm that none of the six does: every entry alike, every direction of a layer alike. The grid
goes down from the largest rate by factors of √10. Each optimizer runs at the rate with the *lowest final training loss*, geometric mean
over the seeds, among the rates at which no seed diverged; the test set is not looked at.

Two budgets: `steps`, the end of the run; `loss`, where the loss on the training set first reaches `level`, with alignment and log test loss
interpolated linearly in the log training loss between the two records around it. An optimizer with a seed that does not
reach it is left out there, and the note of the verdict says how many were ranked. Alignment is the uncentred cosine with the AGOP of the
true target on the test inputs.

With `--task digits` the networks learn the ten digits of scikit-learn (one-hot; the data are the same for every seed). No true function is
known there: the AGOP compared with is the mean over three *reference networks* of the same architecture, trained by momentum on all
images, those of the test set included, for as many steps; it may favour whatever resembles momentum. They are judged at `--level 0.05`.
The reference is uncertain: at the laptop's size the three AGOPs have cosines of 0.59 to 0.69 with each other (and their mean 0.47 with an
untrained network's), so that a verdict on digits is one about this reference.

An association is not a cause: `experiments.mediation` intervenes.

References:
    Zhu, Liu, Radhakrishnan, Belkin, arXiv 2306.04815: the claim is theirs; their settings and numbers were not available.
"""
