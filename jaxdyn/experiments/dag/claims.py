"""What is claimed of networks on graphs; the cases are architectures (and points of the ball), the numbers exponents in m.

The theorem is asymptotic: smaller widths give shallower fits than -1/2.
"""

from jaxdyn.analysis.claims import AtLeast, AtMost, Claim, Within

PAPER = "arXiv 2205.11786"
FALLS, FLAT = Within(-0.6, -0.4), Within(-0.1, 0.1)
BOUND = "For heavy tails the theorem is an upper bound with powers of log m: one-sided since 2026-11-27, before the desk run."
FLOOR = (
    "Since 2026-11-27, before the desk run, held against its limit; before, its exponent in m, which is shallow only where φ' ‖H_f‖ "
    "is small already."
)
BUDGET = "At a fixed budget of edges ‖H_f(w0)‖ follows the"

CLAIMS = (
    Claim("B1/min", f"{BUDGET} smallest in-degree, so it falls like m^(-1/2) along it.", "jaxdyn", FALLS),
    Claim("B1/mean", f"{BUDGET} mean in-degree, which is fixed, so it is constant.", "jaxdyn", FLAT),
    Claim(
        "B2",
        "‖H_f(w0)‖ of five hidden layers is larger than that of three: ratio, geometric mean over widths.",
        "jaxdyn",
        AtLeast(1.0),
    ),
    Claim(
        "B3", "The kernel change along training falls like m^(-1/2) or faster, on graphs too.", "jaxdyn", AtMost(-0.4)
    ),
    Claim(
        "C3.1", "‖H_f‖ falls like m^(-1/2) at w0, on the sphere and at the ascent's end.", f"{PAPER}, Thm 3.6", FALLS
    ),
    Claim(
        "C3.1/heavy-tailed",
        "‖H_f‖ of heavy-tailed graphs falls like m^(-1/2) or faster at w0, on the sphere and at the ascent's end.",
        f"{PAPER}, Thm 3.6",
        AtMost(-0.4),
        BOUND,
    ),
    Claim("C3.2", "‖∇f(w0)‖ does not depend on m.", f"{PAPER}, Prop. 4.4", FLAT),
    Claim("C3.3", "sup |f − f_lin| met in the ball falls like m^(-1/2).", f"{PAPER}, Cor. 3.7", FALLS),
    Claim(
        "C3.3/heavy-tailed",
        "sup |f − f_lin| met in the ball falls like m^(-1/2) or faster on heavy-tailed graphs.",
        f"{PAPER}, Cor. 3.7",
        AtMost(-0.4),
        BOUND,
    ),
    Claim(
        "C3.4",
        "‖H_f‖ of heavy-tailed over uniform graphs does not grow with m.",
        f"{PAPER}, section 3",
        AtMost(0.1),
        BOUND,
    ),
    Claim("C3.5", "‖H‖ of a pre-activation falls like m^(-1/2).", f"{PAPER}, Thm 3.8", FALLS),
    Claim(
        "C3.6",
        "‖H‖ behind a softplus output φ tends to φ''(f) ‖∇f‖², which does not depend on m: their ratio at the largest m.",
        f"{PAPER}, section 3",
        Within(0.8, 1.25),
        FLOOR,
    ),
)
