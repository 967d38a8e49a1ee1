"""Structures: the arrays in nested lists, tuples and dicts, and the types to compute in."""

import keras
from keras import ops, tree


def map_arrays(function, *structures):
    """Maps a function over the arrays in structures that are nested alike; keeps every `None`."""
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
    """The types to compute the weights in: half precision would round small steps away."""
    return [
        real_dtype(weight.dtype) if keras.backend.is_float_dtype(weight.dtype) else weight.dtype
        for weight in weights
    ]


def real_dtype(dtype):
    """The type to compute numbers of a type in, of at least single precision."""
    return keras.backend.result_type(dtype, "float32")


def of_backend(tensors):
    """Turns tensors of TensorFlow into those of another backend."""
    return map_arrays(lambda tensor: ops.convert_to_tensor(tensor.numpy()), tensors)
