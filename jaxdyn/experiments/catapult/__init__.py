"""The catapult phase of quadratic models and of the networks they come from: where it begins and ends, and how high it goes.

η_rel = η c λ_max(K_0) runs from 0.5 to 20, the same grid for every case, fine around 2 and 4:

| family | function | data, loss | sizes |
|---|---|---|---|
| single network, single quadratic | `two_layer_relu`, d = 4, itself and gates frozen | one example, ‖x‖² = d, y = 1, ½ Σ | widths m |
| uv | `models.uv` | (x, y) = (1, 0), ½ Σ | widths m |
| clusters network, clusters quadratic | `two_layer_relu`, d = 1, likewise | two clusters, drawn a seed, mean square | one width |
| general | φ = x/‖x‖, Σ = diag(±1), 100 parameters (figure 8) | one Gaussian example, y = 0, ½ Σ | γ in the part of 1/√m |

In d = 1 the kernel of the network too has two eigenvectors, the inputs of one sign each, so λ_1 and λ_2 (the larger at the start first)
are quadratic forms. A run *trains* if `phases.classify` calls it lazy or catapult and its last loss is below its first. An eigenvalue
*falls* if it loses 3 %: a catapult at η_rel = 2 + δ ends near 2 − δ, so this is met 1.5 % above 2.

Sizes were chosen with the exact map of one example: its boundary at 4 lies within 0.3 % for m ≥ 2048, a rise by 1.1 is met 1 to 2 %
above 2, and near 3.1, where λ ends at 0.003 λ_0, a peak of 10^4 takes 500 steps to come back. Boundaries are geometric means over
seeds, with intervals that hold the brackets of the grid. The exact maps are compared in double precision only:
`jaxdyn run catapult --float64`.

References:
    Zhu, Liu, Radhakrishnan, Belkin, arXiv 2205.11787 (C1). Lewkowycz et al., arXiv 2003.02218 (C6).
"""
