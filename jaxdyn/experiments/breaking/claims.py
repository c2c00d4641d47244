"""What is claimed of networks that become linear and of those that do not; the cases are networks, the numbers exponents in m.

The theory says Õ(m^(-1/2)) with powers of log m. The largest of m independent blocks, max_i |v_i| ‖H_{g_i}‖, grows like √(log m) or faster,
which adds 0.1 to 0.2 to the exponents of ‖H‖ at these widths: hence -0.3 there, and -0.4 elsewhere, as in `width`.
"""

from jaxdyn.analysis.claims import AtLeast, AtMost, Claim

WIDE, ASSEMBLIES, BOTTLENECKS = "arXiv 2010.01092", "arXiv 2203.05104", "arXiv 2206.15058"
FALLS, STAYS = AtMost(-0.3), AtLeast(-0.2)

CLAIMS = (
    Claim("C4.1", "Linear output: the kernel change along training falls like m^(-1/2) or faster.", WIDE, AtMost(-0.4)),
    Claim("C4.1h", "Linear output: the Hessian norm on the ball falls like m^(-1/2).", WIDE, FALLS),
    Claim("C4.2", "Nonlinear output, bottleneck: the kernel change along training does not fall with m.", WIDE, STAYS),
    Claim("C4.2h", "Nonlinear output, bottleneck: the Hessian norm on the ball does not fall with m.", WIDE, STAYS),
    Claim(
        "C4.2l",
        "Gradient descent reaches a small loss all the same: loss at the end over loss at the start, worst width.",
        WIDE,
        AtMost(0.01),
    ),
    Claim("C4.3", "Assemblies: the Hessian norm on the ball falls like m^(-1/2).", ASSEMBLIES, FALLS),
    Claim("C4.3g", "Assemblies: the gradient's norm at w0 does not fall with m.", ASSEMBLIES, AtLeast(-0.1)),
    Claim(
        "C4.4", "Assembly with a dominant member: the Hessian norm on the ball does not fall with m.", ASSEMBLIES, STAYS
    ),
    Claim("C4.5", "Assembly of shared members: the Hessian norm on the ball does not fall with m.", ASSEMBLIES, STAYS),
    Claim(
        "M1",
        "Linear networks: the second-order remainder within a block of weights vanishes.",
        BOTTLENECKS,
        AtMost(-0.4),
    ),
    Claim(
        "M2",
        "Linear networks with bottlenecks: the mixed difference of the blocks does not vanish.",
        BOTTLENECKS,
        STAYS,
    ),
    Claim(
        "M3",
        "Linear networks: the function on the ball becomes linear in each block of weights.",
        BOTTLENECKS,
        AtMost(-0.4),
    ),
)
