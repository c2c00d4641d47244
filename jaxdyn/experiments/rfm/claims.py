"""What is claimed of feature machines (cases: kernels) and of the ansatz (cases: convention, layer).

The bounds leave a factor of about 2 to the authors' numbers (.0123 → .0020 in five iterations).
"""

from jaxdyn.analysis.claims import AtLeast, AtMost, Claim, Within

SOURCE = "arXiv 2212.13881"

NOTEBOOK = (4000, 5, 0.0020)
"""Training examples, iterations and last test MSE of the authors' notebook."""

CLAIMS = (
    Claim("C7.1", "The test MSE falls over the iterations: last over first.", SOURCE, AtMost(1 / 3)),
    Claim(
        "C7.1/notebook",
        "The last test MSE of the Laplace machine is that of the authors' notebook, .0020 (n = 4000, 5 iterations), within a factor of 2.",
        f"{SOURCE}, code",
        Within(NOTEBOOK[2] / 2, NOTEBOOK[2] * 2),
    ),
    Claim(
        "C7.2",
        "M concentrates on the coordinates 0, 1, 5: their share of its trace, 3/20 at first.",
        SOURCE,
        AtLeast(0.9),
    ),
    Claim(
        "C7.3",
        "The feature ansatz holds better after training than before: the difference of the correlations.",
        SOURCE,
        AtLeast(0.2),
        note="Set after a trial on another seed had shown a plain correlation of 0.88 in the first layer before training.",
    ),
    Claim("R1", "The machine's metric is the network's AGOP: their uncentred cosine.", "jaxdyn", AtLeast(0.9)),
)
