"""Why gradient descent finds a zero of the loss: PL*, its constant, its rate, its ball.

With L = (c/2) ‖f − y‖², K the tangent kernel, μ = c min_t λ_min(K_t) and β the largest sharpness of a run, gradient descent with
η = `rate` / (c λ_max(K_0)) is held against the convergence theorem (`theory.pl`). Networks with one hidden layer of tanh learn two classes
of scikit-learn's digits, with targets 0.5 ± 0.4 so that a softplus output can take them too; beside them a random quadratic map of 60
parameters onto 8 outputs. μ and β are those of the path: what they make of the theorem is a stricter statement than its own, which takes
the ball.

References:
    Liu, Zhu, Belkin, arXiv 2003.00307. Zhu, Liu, Belkin, arXiv 2205.11786, section 4.
"""
