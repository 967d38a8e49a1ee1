"""Structures: the arrays in what Keras nests, and the types to compute with."""

import keras
from keras import ops, tree


def map_arrays(function, *structures):
    """Maps a function over the arrays in structures of one kind, and keeps every `None`."""
    return tree.map_structure(
        lambda *parts: None if parts[0] is None else function(*parts), *structures
    )


def arrays_of(structure):
    """Returns a list of the arrays in a structure."""
    return [part for part in tree.flatten(structure) if part is not None]


def in_structure_of(structure, arrays):
    """Returns a structure with its arrays replaced by those in a list."""
    remaining = iter(arrays)
    return map_arrays(lambda _: next(remaining), structure)


def samples(tensors, start, size):
    """Returns some consecutive samples of a structure of tensors."""

    def part(tensor):
        rest = tensor.shape[1:]
        return ops.slice(tensor, [start] + [0] * len(rest), [size, *rest])

    return map_arrays(part, tensors)


def precise_dtypes(weights):
    """The type to compute each weight in: half precision would round a step away."""
    return [
        real_dtype(weight.dtype) if keras.backend.is_float_dtype(weight.dtype) else weight.dtype
        for weight in weights
    ]


def real_dtype(dtype):
    """The type of at least single precision that numbers of a type are computed in."""
    return keras.backend.result_type(dtype, "float32")


def of_backend(tensors):
    """Turns tensors of TensorFlow into those of another backend."""
    return map_arrays(lambda tensor: ops.convert_to_tensor(tensor.numpy()), tensors)
