"""What breaks the transition to linearity: nonlinear outputs, bottlenecks, dominant or shared sub-models; and multilinearity.

The networks of `networks.NETWORKS` have hidden width (or channels, or members) m and inputs x ~ N(0, I_16). On the ball of radius R around
their initialisation w0:

* `probes.BallCurvature`: ‖H_f‖ at two inputs, the largest of three points: w0, a random point of the sphere, and where an ascent of
  |f − f_lin| ends. The ascent goes where |f| is of order one and φ''(f) ≠ 0: tanh has φ''(0) = 0, and at w0 its curvature may seem to fall.
* `probes.Multilinearity`, for linear networks cut at their bottlenecks: the largest second-order remainder within the blocks, mixed
  difference of all blocks, and |f − f_multilinear|, each at the end of an ascent of its own.

Those of C4.1 and C4.2 also learn n targets 0.5 + 0.4 tanh(x_1 x_2), which every output function here can take, by gradient descent at
η = `rate` / (c λ_max(K_0)).

References:
    Liu, Zhu, Belkin, arXiv 2010.01092 (C4.1, C4.2), 2203.05104 (C4.3 to C4.5), 2206.15058 (M1 to M3).
"""
