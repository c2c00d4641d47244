"""What is to be learned: tasks, and which examples enter which step."""

from jaxdyn.tasks import pictures
from jaxdyn.tasks.base import Task, from_arrays
from jaxdyn.tasks.cifar import cifar10
from jaxdyn.tasks.classification import classification
from jaxdyn.tasks.datasets import digits
from jaxdyn.tasks.files import idx, npz
from jaxdyn.tasks.noise import with_label_noise
from jaxdyn.tasks.sampling import full_batch, minibatch
from jaxdyn.tasks.synthetic import multi_index, polynomial, two_clusters

__all__ = [
    "Task",
    "cifar10",
    "classification",
    "digits",
    "from_arrays",
    "full_batch",
    "idx",
    "minibatch",
    "multi_index",
    "npz",
    "pictures",
    "polynomial",
    "two_clusters",
    "with_label_noise",
]
