"""Real data that need no download: the handwritten digits that come with scikit-learn.

Files of your own (MNIST, CIFAR-10, `.npz`) are read by `idx`, `cifar10` and `npz`. Choice, scale and code of the
classes are those of `jaxdyn.tasks.classification`.
"""

from collections.abc import Sequence

from jaxdyn._typing import Key
from jaxdyn.tasks.base import Task
from jaxdyn.tasks.classification import Coding, Scale, classification


def digits(
    *,
    classes: Sequence[int],
    n: int | None = None,
    n_test: int | None = None,
    key: Key | None = None,
    coding: Coding | None = None,
    normalise: Scale = "centred",
    shape: Sequence[int] | None = None,
) -> Task:
    """Handwritten digits, 8 × 8 pixels: 1797 images, 174 to 183 a class.

    Inputs are flat, centred pixel by pixel and scaled to mean ‖x‖²/d = 1, both by the training set (pixels that never
    vary stay 0). Two classes give y = −1 (the first) and +1 (the second) as [n, 1], more give one-hot rows [n, k].

    Args:
        classes: digits to learn, at least two of 0, …, 9, in the order of their code.
        n: training images. Default: three quarters of those available.
        n_test: test images, disjoint from the training images; 0 for none. Default: all that remain.
        key: shuffles the images before the choice. Default: their order in scikit-learn.
        coding: code of the classes, as in `classification`.
        normalise: scale of the inputs, as in `classification`.
        shape: shape of one input, (8, 8, 1) for convolutions. Default: flat, (64,).

    Returns:
        A task with `x` [n, 64] and `y` [n, 1] or [n, k], balanced as far as possible.

    Raises:
        ValueError: for an unknown or repeated class, or more images than there are.
        TypeError: when `key` is traced: the images are chosen on the host.

    Example:
        >>> task = digits(classes=(3, 8), n=256)
        >>> task.x.shape, task.y.shape, task.x_test.shape
        ((256, 64), (256, 1), (101, 64))

    References:
        E. Alpaydin, C. Kaynak, "Optical recognition of handwritten digits", UCI machine learning repository, 1998 (the
        test part).
    """
    from sklearn.datasets import load_digits  # late: it takes seconds

    x, labels = load_digits(return_X_y=True)
    return classification(
        x, labels, classes=classes, n=n, n_test=n_test, key=key, coding=coding, normalise=normalise, shape=shape
    )
