"""What is claimed of spikes, alignment and test loss; the cases are batch sizes (M3) and numbers of raises (M4).

Of a run: y the log test loss, s = log(1 + spikes), a = −log(1 − alignment). M1 and M2 are a linear model of observations; M3 and M4 are
differences within seeds between an intervention and the run without it. Residuals are what is left of y beside the line of y on a through
the observations alone, so the prediction is made without having seen an intervention; 0.2 is a fifth of the test loss. If alignment is the
path, M2/direct and the residuals are zero.
"""

from jaxdyn.analysis.claims import AtLeast, AtMost, Claim, Within

SOURCE = "jaxdyn, on arXiv 2306.04815"

CLAIMS = (
    Claim("M1", "More spikes go with a lower test loss: standardised slope of y on s.", SOURCE, AtMost(0.0)),
    Claim("M2", "Half of that or more goes through alignment: share 1 − c'/c.", SOURCE, AtLeast(0.5)),
    Claim("M2/direct", "Beside alignment, spikes have no slope: c'.", SOURCE, Within(-0.2, 0.2)),
    Claim("M2/alignment", "Beside spikes, alignment has a negative slope: b.", SOURCE, AtMost(0.0)),
    Claim(
        "M3/*/spikes", "The cap takes spikes away (a check of the intervention): capped − plain.", SOURCE, AtMost(0.0)
    ),
    Claim("M3/*/alignment", "With the spikes alignment goes: a, capped − plain.", SOURCE, AtMost(0.0)),
    Claim("M3/*/test", "Without the spikes the log test loss is higher: y, capped − plain.", SOURCE, AtLeast(0.0)),
    Claim("M3/*/rate", "It is higher than at a constantly lower rate too: y, capped − slow.", SOURCE, AtLeast(0.0)),
    Claim(
        "M3/*/residual",
        "The test loss moves as alignment predicts: log residual, capped − plain.",
        SOURCE,
        Within(-0.2, 0.2),
    ),
    Claim("M4/*/spikes", "Raises of the rate add spikes at full batch: forced − plain.", SOURCE, AtLeast(0.0)),
    Claim("M4/*/alignment", "Forced spikes raise alignment: a, forced − plain.", SOURCE, AtLeast(0.0)),
    Claim("M4/*/test", "Forced spikes lower the log test loss: y, forced − plain.", SOURCE, AtMost(0.0)),
    Claim(
        "M4/*/residual",
        "The test loss moves as alignment predicts: log residual, forced − plain.",
        SOURCE,
        Within(-0.2, 0.2),
    ),
)
