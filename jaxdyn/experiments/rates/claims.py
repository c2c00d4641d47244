"""What is claimed of maximal rates, in units of 1/(c λ_max(K_0)), and of the quadratic model's foresight.

D1 to D3 are what single small runs had shown before the experiment was written; 10.7 and 18 are 12 and 20 less a step of the grid.
"""

from jaxdyn.analysis.claims import AtLeast, AtMost, Claim, Within

OURS, TRIAL = "jaxdyn", "single runs before the experiment"

CLAIMS = (
    Claim(
        "R1",
        "A linear model fails at 2 in most seeds, whatever the momentum: share of seeds whose bracket holds it.",
        "linear algebra",
        AtLeast(0.5),
        "Criterion changed on 2026-11-27, before the runs at desk: it had been a share of 1, without an interval.",
    ),
    Claim(
        "R2",
        "The quadratic model of a wide ReLU network fails at 4.",
        "arXiv 2205.11787, thm 5, for one example",
        Within(3.6, 4.4),
    ),
    Claim("C6", "ReLU networks fail at about 12.", "arXiv 2003.02218, section 2.2", Within(8.0, 16.0)),
    Claim("D1", "Gaussian inputs: one hidden layer of ReLU fails by 5.", TRIAL, AtMost(5.0)),
    Claim("D3", "Gaussian inputs: two hidden layers of ReLU train at 12.", TRIAL, AtLeast(10.7)),
    Claim("D2", "Positive inputs: one hidden layer of ReLU trains at 20.", TRIAL, AtLeast(18.0)),
    Claim("H1", "A second hidden layer raises the maximal rate: ratio.", OURS, AtLeast(1.0)),
    Claim(
        "H2",
        "tanh, whose units lose curvature as they saturate, trains at larger rates than ReLU: ratio.",
        OURS,
        AtLeast(1.0),
    ),
    Claim(
        "H3",
        "The maximal rate of one hidden layer of ReLU does not depend on the width: exponent.",
        OURS,
        Within(-0.1, 0.1),
    ),
    Claim("H4", "Positive inputs train at larger rates than Gaussian ones: ratio.", OURS, AtLeast(1.0)),
    Claim(
        "H5/peak",
        "The quadratic model foretells the peak loss at ratio 3: network over model, widest.",
        OURS,
        Within(0.8, 1.25),
    ),
    Claim(
        "H5/curvature", "It foretells the final curvature there: network over model, widest.", OURS, Within(0.8, 1.25)
    ),
    Claim(
        "H5t",
        "It foretells the final test loss there: network over model, widest.",
        "arXiv 2205.11787, figure 4",
        Within(0.9, 1.1),
    ),
    Claim(
        "H5s",
        "It foretells the final test loss below the critical rate: network over model, widest.",
        "arXiv 2205.11787, figure 4",
        Within(0.9, 1.1),
    ),
    Claim("H6", "Momentum narrows the window: η_max/(1 + β) over that of gradient descent.", OURS, AtMost(1.0)),
    Claim(
        "H7",
        "With Adam, whose step is bounded, network and linear model fail alike: ratio of maximal rates.",
        OURS,
        Within(0.5, 2.0),
    ),
)
