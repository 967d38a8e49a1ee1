"""Checkpoints: saved values with points still missing, and what they belong to.

A checkpoint is a file like those that a value's own `save` writes. Its metadata list
the points that are still missing, and hold a fingerprint of all that the values
depend on, so that the results of two computations never mix.
"""

import dataclasses
import json
import time
import warnings

import numpy as np

from losslandscape.basics.arrays import digest
from losslandscape.basics.checks import numbered, warn
from losslandscape.measuring.centers import RESUMED, difference, tolerance_of
from losslandscape.measuring.sampling import joined
from losslandscape.values.files import read_value

# How often to write, in seconds: about the most computing time that a kill can lose.
INTERVAL = 1.0
# The parts of `model.get_compile_config` that affect the values, and not only the training.
MEASURED = ("loss", "loss_weights", "metrics", "weighted_metrics")


class Checkpoint:
    """The files in which one call keeps what it has measured.

    Each write replaces a whole file, so that a kill at any instant leaves the old
    one or the new one.

    Args:
        path: Where to keep the points; for several datasets, `line.h5` becomes
            `line-1.h5`, `line-2.h5`, … `None` keeps nothing.
        kind: The class of what is saved, such as `LossSurface`.
        number_of_datasets: How many datasets are measured. Defaults to 1.

    Attributes:
        seed: The seed of the random directions in the files, or `None`.

    Raises:
        ValueError: If the files cannot be written, or hold something else.
    """

    def __init__(self, path, kind, number_of_datasets=1):
        self._paths = _paths(path, number_of_datasets)
        self._saved = [_load(kind, path) if path.exists() else None for path in self._paths]
        self._stamps = [_stamp(path) for path in self._paths]
        self._written = time.monotonic()
        seeds = [saved.metadata.get("seed") for saved in self._saved if saved is not None]
        self.seed = seeds[0] if seeds else None

    def identify(self, model, data, **parts):
        """Notes what the points belong to; refuses files that belong to something else.

        Args:
            model: A compiled and built `keras.Model`.
            data: List of `Dataset`.
            **parts: Arrays, or nested lists of them, that the values depend on,
                by the name that errors give them.
        """
        if not self._paths:
            return
        self._tolerance = tolerance_of(model, RESUMED)
        parts = {"weights": model.weights, "loss or metrics": _measured(model)} | parts
        # Once for all datasets, because digests of large arrays take time.
        common = {name.replace("_", " "): digest(part) for name, part in parts.items()}
        self._fingerprints = [
            common | {"data": dataset.digest, "batch size": dataset.batch_size} for dataset in data
        ]
        for path, saved, expected in zip(self._paths, self._saved, self._fingerprints, strict=True):
            if saved is not None:
                _check_same(path, saved, expected)

    def restore(self, number, centers, compared=None):
        """Reads the points that the files hold.

        Args:
            number: How many points there are.
            centers: List with a dict of floats per dataset, as measured now.
            compared: Names of the values there that must be the same as in the files.
                Defaults to `None`, all of them.

        Returns:
            A list with a dict of arrays of shape `(number,)` per dataset, NaN
            where a point is missing, and the boolean array of the missing ones.

        Raises:
            ValueError: If the files hold other metrics or points, or other values at the
                center than the model has now.
        """
        measured = [{name: np.full(number, np.nan) for name in center} for center in centers]
        is_missing = np.full(number, not self._paths)
        # Not strict: without a path there is nothing to restore or, in `write`, to write.
        for path, saved, values, center in zip(
            self._paths, self._saved, measured, centers, strict=False
        ):
            if saved is None:
                is_missing[:] = True
                continue
            found = _measurements(saved)
            _check_points(path, found, saved.missing_numbers, values)
            _check_center(path, difference([saved.center], [center], self._tolerance, compared))
            values.update(found)
            is_missing[saved.missing_numbers] = True
        return measured, is_missing

    def describe(self, is_missing):
        """Says how many points were measured, and where they are."""
        done = f"{np.count_nonzero(~is_missing)} of {len(is_missing)} points were measured"
        if not self._paths:
            return f"{done}; with `checkpoint=`, they would have been kept."
        paths = " and ".join(map(str, self._paths))
        return f"{done}, and are in {paths}. The same call resumes from there."

    def is_due(self):
        """Whether it is time to write."""
        return bool(self._paths) and time.monotonic() - self._written > INTERVAL

    def write(self, values, is_missing):
        """Replaces the files; a failure only warns, because the computed values matter more.

        Args:
            values: List of what to save, one per dataset.
            is_missing: Boolean array of the points that are missing.
        """
        state = {"missing": np.flatnonzero(is_missing).tolist()} if is_missing.any() else {}
        for index, (path, value) in enumerate(zip(self._paths, values, strict=False)):
            if _stamp(path) != self._stamps[index]:
                warn(
                    f"Something else has written to the checkpoint {path}. This computation "
                    "continues without a checkpoint."
                )
                self._paths = []
                return
            metadata = value.metadata | state | {"fingerprint": self._fingerprints[index]}
            try:
                dataclasses.replace(value, metadata=metadata).save(path)
            # HDF5 and JSON may raise anything.
            except Exception as error:
                warn(
                    f"Could not write the checkpoint {path}: {error}. The computed values are "
                    "kept in memory."
                )
            self._stamps[index] = _stamp(path)
        self._written = time.monotonic()


def _paths(path, number_of_datasets):
    return [] if path is None else numbered("checkpoint", path, number_of_datasets)


def _load(kind, path):
    expected = f"new, or a file from an earlier call with a {kind.__name__}"
    saved = read_value(kind, path, "checkpoint", expected)
    if not isinstance(saved.metadata.get("fingerprint"), dict):
        raise ValueError(
            f"`checkpoint` must be new, or a file from an earlier call. Received {str(path)!r}, "
            f"which was saved without a fingerprint: {saved!r}."
        )
    return saved


def _stamp(path):
    """A value that changes whenever the file is replaced."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _measured(model):
    """The loss and metrics as text; changes that it misses are found at the center."""
    with warnings.catch_warnings():
        # Keras warns of lambdas that cannot be loaded, but this text is only compared.
        warnings.simplefilter("ignore")
        config = model.get_compile_config() or {}
    return json.dumps({name: config.get(name) for name in MEASURED}, sort_keys=True, default=str)


def _check_same(path, saved, expected):
    found = saved.metadata["fingerprint"]
    differing = [name for name in expected if found.get(name) != expected[name]]
    if differing:
        raise ValueError(
            f"`checkpoint` must be new, or belong to this call. Received {str(path)!r}, which "
            f"holds {saved!r} of {saved.metadata.get('model')!r} with different "
            f"{', '.join(differing)}. Pass the arguments it was started with, or another path."
        )


def _check_points(path, held, missing, wanted):
    """Refuses other metrics or points, as from a hand-edited file or another test step."""
    found, expected = (
        {name: array.size for name, array in values.items()} for values in (held, wanted)
    )
    if found != expected or not np.isin(missing, np.arange(max(expected.values()))).all():
        raise ValueError(
            f"`checkpoint` must be new, or belong to this call. Received {str(path)!r}, which "
            f"holds this many values: {found}; this call measures {expected}. Pass another path."
        )


def _check_center(path, found):
    """Refuses files in which the center is not the same."""
    if found is None:
        return
    _, name, then, now = found
    raise ValueError(
        f"`checkpoint` must be new, or belong to this call. Received {str(path)!r}, where the "
        f"model itself has a {name} of {then:g}; now it has {now:g}, with the same weights and "
        "data. Its layers, its loss or the library must have changed. Pass another path."
    )


def _measurements(saved):
    """All measured values in the order of the points, without the center."""
    parts = [getattr(saved, name) for name in saved.measured]
    values = {name: np.concatenate([part[name].ravel() for part in parts]) for name in parts[0]}
    errors = {name: array.ravel() for name, array in getattr(saved, "errors", {}).items()}
    return joined(values, errors)
