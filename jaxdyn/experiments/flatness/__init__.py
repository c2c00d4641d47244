"""Large rates end in flat minima: curvature and test accuracy against the learning rate, at fixed steps and at fixed physical time.

λ is the largest eigenvalue of K/n, so that with the loss 1/(2n) Σ (c = 1/n) the critical rate is 2/λ_0 and η_rel = η λ_0. Fully
connected ReLU networks with three hidden layers learn the parity of handwritten digits (y = ±1) by full-batch gradient descent; the paper
has width 2048 and MNIST. In NTK scaling with g = 1 three layers of ReLU shrink their input; preset `desk` has g = √2 (`unit_gain`),
which keeps it.

Every run is looked at after `steps` steps, and after the number of steps at which t η λ_0 = `time` (the paper's FC network: 80). A run
*trains* if `phases.classify` calls it lazy or catapult and its last loss is below its first.

"Best" is chosen without the seed it is measured on: for each seed the rate on either side of 2 that is best on average over the others,
among the rates at which every seed trains. Accuracies and losses are those at the end of the horizon, not the best on the way. The paper
follows a fixed time by steps at a small rate, which removes the noise of minibatches; full batches have none, and we do not.

References:
    Lewkowycz et al., arXiv 2003.02218, figures 2 and 3.
"""
