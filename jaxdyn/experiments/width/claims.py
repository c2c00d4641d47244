"""What is claimed of wide networks; the cases are numbers of hidden layers.

The slack of 0.1 around -1/2 allows for finite width: exponents of -0.44 to -0.53 were measured for Hessian norms at widths up to 1024.
"""

from jaxdyn.analysis.claims import AtMost, Claim, Within

CLAIMS = (
    Claim(
        "W1",
        "The kernel change along training, max ‖K_t − K_0‖/‖K_0‖, falls like m^(-1/2) or faster: exponent.",
        "arXiv 2010.01092",
        AtMost(-0.4),
    ),
    Claim(
        "W2",
        "The distance of the trained network to its linear model, rms over test images, falls like m^(-1/2) or faster: exponent.",
        "arXiv 2205.11786, Cor. 3.7",
        AtMost(-0.4),
    ),
    Claim(
        "W3",
        "The initial kernel approaches the infinite-width one, ‖K_0 − K_∞‖/‖K_∞‖, like m^(-1/2): exponent.",
        "arXiv 1806.07572, Thm 1",
        Within(-0.6, -0.4),
    ),
    Claim(
        "W4",
        "The quadratic model is closer to the network than the linear one at every width: ratio of distances at the worst.",
        "arXiv 2205.11787",
        AtMost(1.0),
    ),
    Claim(
        "W5",
        "The trained network approaches infinite-width kernel descent from its own initial outputs: exponent of the distance.",
        "arXiv 1806.07572, Thm 2",
        AtMost(0.0),
    ),
)
