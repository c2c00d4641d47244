"""A configuration in the attributes of a dataset, and back."""

import dataclasses
import json
from typing import Any, TypeVar

C = TypeVar("C")


def attributes(experiment: str, config: Any) -> dict[str, str]:
    """The attributes by which a dataset tells what it is: name and configuration of the experiment."""
    return {"experiment": experiment, "config": json.dumps(dataclasses.asdict(config))}


def restored(dataset: Any, kind: type[C]) -> C:
    """The configuration, an instance of `kind`, that a dataset was made with; its sequences are tuples again."""
    fields = json.loads(dataset.attrs["config"]).items()
    plain: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in fields}
    return kind(**plain)
