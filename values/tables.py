"""Tables: values for pandas and xarray, from coordinates and arrays over them.

Both functions take `coordinates`, a dict of one-dimensional arrays, and `variables`, a list
of triples: a name, the names of some of these coordinates, and an array over them. Metrics may
have any name, so `_value` is appended to a name that is taken.
"""

import json

import numpy as np

from losslandscape.basics.checks import import_extra


def to_frame(coordinates, variables, attributes):
    """Returns a tidy `pandas.DataFrame`: a row per combination of coordinates."""
    pandas = import_extra("pandas", "pandas")
    grid = np.meshgrid(*coordinates.values(), indexing="ij")
    columns = dict(zip(coordinates, grid, strict=True))
    for name, (along, array) in _named(variables, coordinates).items():
        lacking = [axis for axis, each in enumerate(coordinates) if each not in along]
        columns[name] = np.broadcast_to(np.expand_dims(array, tuple(lacking)), grid[0].shape)
    frame = pandas.DataFrame({name: column.ravel() for name, column in columns.items()})
    frame.attrs = dict(attributes)
    return frame


def to_dataset(coordinates, variables, attributes):
    """Returns an `xarray.Dataset`, with attributes that NetCDF can hold."""
    xarray = import_extra("xarray", "xarray")
    attributes = {name: _writable(entry) for name, entry in attributes.items()}
    return xarray.Dataset(_named(variables, coordinates), coordinates, attributes)


def _named(variables, taken):
    named = {}
    for name, along, array in variables:
        while name in named or name in taken:
            name += "_value"  # noqa: PLW2901, until it is free
        named[name] = tuple(along), array
    return named


def _writable(entry):
    return entry if type(entry) in (str, int, float) else json.dumps(entry)
