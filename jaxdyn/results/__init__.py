"""Labelled results: trajectories and axes to `xarray.Dataset`, and datasets on disk."""

from jaxdyn.results.dataset import Field, Template, dataset, template
from jaxdyn.results.params import params
from jaxdyn.results.provenance import provenance
from jaxdyn.results.store import Store, StoreError, create_or_open, open

__all__ = [
    "Field",
    "Store",
    "StoreError",
    "Template",
    "create_or_open",
    "dataset",
    "open",
    "params",
    "provenance",
    "template",
]
