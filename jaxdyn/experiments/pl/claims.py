"""What is claimed of the PL* condition; the cases are networks, of C5.5 shapes.

Numbers without an interval are the worst over seeds, records and widths; records whose loss is below 1e-6 of the initial one do not count,
since their residual is rounding in single precision. C5.6 is what the stability bound λ_min(K) ≥ λ_min(K_0) − 2 n R sup‖∇f‖ sup‖H‖ and
‖H‖ = Õ(m^(-1/2)) imply.
"""

from jaxdyn.analysis.claims import AtLeast, AtMost, Claim

SOURCE = "arXiv 2003.00307"

CLAIMS = (
    Claim("C5.0", "The learning rate is at most 1/β along the path: worst η β.", SOURCE, AtMost(1.0)),
    Claim("C5.1", "‖∇L‖² is c² rᵀKr: worst relative difference.", SOURCE, AtMost(1e-3)),
    Claim("C5.1b", "‖∇L‖²/(2L) ≥ c λ_min(K): least slack over c λ_max.", SOURCE, AtLeast(-1e-5)),
    Claim("C5.2", "The loss falls at least as (1 − ημ)^t: least rate over that.", SOURCE, AtLeast(1.0)),
    Claim("C5.2b", "The loss gets small: L_T/L_0, geometric mean over seeds, worst width.", SOURCE, AtMost(0.01)),
    Claim(
        "C5.3",
        "The path stays in the ball of radius R = 2 √(2 β L_0)/μ: its greatest length over R.",
        SOURCE,
        AtMost(1.0),
    ),
    Claim(
        "C5.4", "With more outputs than parameters the kernel is singular: worst |λ_min|/λ_max.", SOURCE, AtMost(1e-5)
    ),
    Claim(
        "C5.5",
        "E log κ(K) of a Gaussian n × m Jacobian is below 2 log(m/(m−n+1)) + 5: the bound minus the mean.",
        SOURCE,
        AtLeast(0.0),
    ),
    Claim(
        "C5.6",
        "The relative change of λ_min(K) along training falls like m^(-1/2) or faster (tanh networks): exponent.",
        "arXiv 2205.11786, section 4",
        AtMost(-0.4),
    ),
)
