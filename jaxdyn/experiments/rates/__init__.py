"""The largest rate that trains, in units of 1/(c λ_max(K_0)), and how far down in width the quadratic model foretells a network.

Gradient descent on full batches, a grid of rates η = ratio / (c λ_max(K_0)), several initialisations. A rate *holds* when the run stays
finite, its last loss is below its first and its kernel keeps more than 1e-6 of its top eigenvalue; the *maximal* rate lies between the rate
that first fails and the one of the grid before it. What has not come back down by the last step has failed.

Networks in NTK scaling of one to three hidden layers (paper 6's count), with g = 1, or with the gain of their activation (`unit_gain`,
preset `desk`), which keeps the second moment from layer to layer; inputs of 64 numbers of mean square 1: `gaussian` N(0, 1),
`positive` |N(0, 1)|, both with y the sign of the first number about its median, and `digits` (scikit-learn's 3 and 8). Heavy ball of
momentum β takes η = ratio (1 + β) / (c λ_max), so that a linear model fails at 2 for every β. Adam has no such bound: η = 8 ratio / √(p
λ_max(K_0)/n), about the step whose sign descent moves the outputs by 8 ratio (the 8 was put in after a toy run in which all rates held).

Maximal rates are geometric means over seeds, with intervals that hold the brackets of the grid.

References:
    Lewkowycz et al., arXiv 2003.02218, section 2.2. Zhu et al., arXiv 2205.11787, sections 3 and 4.
"""
