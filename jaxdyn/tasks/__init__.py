"""What is to be learned: tasks, and which examples enter which step."""

from jaxdyn.tasks import pictures
from jaxdyn.tasks.base import Task, from_arrays
from jaxdyn.tasks.cifar import cifar10
from jaxdyn.tasks.classification import classification
from jaxdyn.tasks.datasets import digits
from jaxdyn.tasks.files import idx, npz
from jaxdyn.tasks.news import ag_news
from jaxdyn.tasks.noise import with_label_noise
from jaxdyn.tasks.published import fashion_mnist, kmnist, mnist, svhn
from jaxdyn.tasks.sampling import full_batch, minibatch
from jaxdyn.tasks.speech import fsdd
from jaxdyn.tasks.synthetic import multi_index, polynomial, two_clusters

__all__ = [
    "Task",
    "ag_news",
    "cifar10",
    "classification",
    "digits",
    "fashion_mnist",
    "from_arrays",
    "fsdd",
    "full_batch",
    "idx",
    "kmnist",
    "minibatch",
    "mnist",
    "multi_index",
    "npz",
    "pictures",
    "polynomial",
    "svhn",
    "two_clusters",
    "with_label_noise",
]
