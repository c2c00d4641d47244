"""Wide networks become linear: a width sweep on real images against Taylor models and the infinite-width NTK.

Fully connected tanh networks of two depths learn two classes of scikit-learn's digits by sub-critical full-batch gradient
descent, η = `rate` / (c λ_max(K_∞)) with K_∞ the infinite-width kernel on the training images, the same for all widths and
seeds; beside each network, its linear and quadratic models run from the same initialisation.

The kernel regression is started from each seed's own initial outputs, whose spread does not shrink with the width; the
ensemble mean, in which it averages out, is shown in the figure with its standard error.

References:
    Liu, Zhu, Belkin, arXiv 2010.01092. Zhu, Liu, Belkin, arXiv 2205.11786, Cor. 3.7. Zhu et al., arXiv 2205.11787.
    Jacot et al., arXiv 1806.07572.
"""
