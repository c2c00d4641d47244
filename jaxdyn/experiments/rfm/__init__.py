"""Recursive feature machines and the feature ansatz: do kernels and networks learn to look at the same coordinates?

The target is f*(x) = x_0 x_1 1{x_5 > 0} of x ~ N(0, ¼ I_20), three of twenty coordinates. Each seed draws its own data. Three learners:

| learner | what it is |
|---|---|
| laplace | `theory.rfm.fit`, exp(−‖Δ‖_M / 10), ridge 1e-3, M ← G as it is: the authors' notebook |
| gaussian | the same with exp(−‖Δ‖_M² / (2L²)), 2L² = E‖x − z‖² = 10, M ← G / max G: the scale of M matters to this kernel |
| network | two hidden layers, ReLU, no bias, maximal-update scaling (so that features move), SGD with batches of 100 at a fixed rate |

The authors' stopping (best validation error), width and epochs are not imitated. Two conventions of the ansatz W Wᵀ ∝ G^½, both by the
*centred* Pearson correlation of entries, W in [fan_in, fan_out], G the AGOP with respect to the layer's input on the training examples:

* plain: W_t W_tᵀ with G_t^½; before is t = 0. Both matrices are then nearly multiples of the identity, whose correlation is high.
* init removed: (W_T − W_0)(W_T − W_0)ᵀ with G_T^½ (the authors' check); before is the same matrix with G_0^½, since nothing has moved at 0.

The true AGOP is no reference here: the derivative of the gate is zero almost everywhere, so that it does not know coordinate 5.

References:
    Radhakrishnan, Beaglehole, Pandit, Belkin, arXiv 2212.13881, and the notebooks of its code.
"""
