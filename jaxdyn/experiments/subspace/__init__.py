"""Where a catapult happens: the loss in the top eigenspace of the current tangent kernel, and outside it.

Two-layer ReLU networks, fully connected (`models.two_layer_relu`) and convolutional (3 × 3, zero padding, flat readout), and their
quadratic models around the same initialisation, by gradient descent on n pictures of two classes at η_rel = η c λ_1(K_0) between 2 and 4.
At every step the kernel K_t on the training pictures is decomposed anew, K_t u_i = λ_i u_i, and with r = f − y

    P_{≤s}L = (c/2) Σ_{i≤s} ⟨u_i, r⟩²,    P_{>s}L = L − P_{≤s}L.

The diagnostics of paper 2205.11787, appendix 19.3, are for networks defined by what a step does to the top direction p1 = u_1(t):

    ⟨p1, r_{t+1}⟩ = (1 − η c λ_1 + p1ᵀR_f p1) ⟨p1, r_t⟩,    p1ᵀK_{t+1} p1 = λ_1 − p1ᵀR_K p1.

For a quadratic model p1ᵀR_K p1 is then that of `theory.catapult.quadratic_update`, and p1ᵀR_f p1 stands for p1ᵀR_f r/⟨p1, r⟩: the whole of
R_f's effect on p1. The quadratic form of K_{t+1} is not its top eigenvalue, which is recorded as well.

s is known before the run: the number of eigenvalues of K_0 above 2/(η c), those with η c λ_i(K_0) > 2, at least 1. Only runs that
`analysis.phases` calls a catapult count (loss up by more than a tenth, then below its start); the others are counted in a note.

References:
    Zhu, Liu, Radhakrishnan, Belkin, arXiv 2205.11787, figures 6 and 7, appendix 19.3. Zhu et al., arXiv 2306.04815, claim 1.
"""
