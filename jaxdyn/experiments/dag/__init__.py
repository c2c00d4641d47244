"""Transition to linearity on directed acyclic graphs: Hessian norms against the smallest in-degree m.

Networks with one output on d = 16 inputs, tanh, NTK scaling; m runs over a factor of 16 or more, and every seed has its own graph:

| architecture | what it is, m = width |
|---|---|
| fully connected | three hidden layers of m |
| deep | five hidden layers of m |
| uniform | three hidden layers of 3m, in-degrees uniform on [m, 3m], parents from all earlier hidden layers |
| heavy-tailed | three hidden layers of m^1.25, in-degrees Pareto (tail 1) from m to m^1.25, parents likewise |
| convolution | two 3 × 3 convolutions with m channels on 4 × 4 pixels, every position read out: shared weights |
| fixed budget | three hidden layers of M = 2 max(width); power law of in-degrees from m/4 to M with mean M/8, by its tail |

Three functions of each network at one example: the output f, the output behind a softplus (whose second derivative vanishes nowhere; f is
of order 1), and the pre-activation of one neuron of the last hidden layer. Three points: w0, a random point of the sphere
‖w − w0‖ = R, and where projected ascent of |f − f_lin| in that ball ended. Then gradient descent on 32 examples, at half the critical
rate.

B1 to B3 are ours. At most one of the two B1 claims can be supported.

References:
    Zhu, Liu, Belkin, arXiv 2205.11786, Thms 3.6 and 3.8, Cor. 3.7, Prop. 4.4.
"""
