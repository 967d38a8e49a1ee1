"""Internals: the private names of Keras that this library cannot do without.

They are all here, one function each, so that a new Keras breaks only one place, and loudly.
"""

from keras import Sequential
from keras.backend import backend
from keras.optimizers.schedules import LearningRateSchedule
from keras.src.backend.common import global_state
from keras.src.models.functional import Functional
from keras.src.random import seed_generator
from keras.src.trainers.data_adapters import get_data_adapter


def flatten_layers(model):
    """Returns the model and all layers in it, at any depth, each once."""
    return model._flatten_layers()


def own_trainable_variables(layer):
    """Returns the trainable variables of a layer itself, without those of its sublayers."""
    return layer._trainable_variables


def build_symbolically(model, batch):
    """Builds what a model builds on its first batch, such as metrics, without computing."""
    model._symbolic_build(data_batch=batch)


def batches_of(py_dataset):
    """Yields the batches of a `PyDataset` as Keras reads them on this backend, with its workers."""
    # A new one each time: if a pass ends early, its workers have read ahead.
    adapter = get_data_adapter(py_dataset)
    readers = {"jax": adapter.get_jax_iterator, "torch": adapter.get_torch_dataloader}
    try:
        # On TensorFlow, Keras would make a pipeline, which takes longer than to read many batches.
        yield from readers.get(backend(), adapter.get_numpy_iterator)()
    finally:
        if adapter.enqueuer is not None:
            adapter.enqueuer.stop()


def global_seed_generator():
    """Returns the generator that `keras.random` uses without a seed; makes it if needed."""
    return seed_generator.global_seed_generator()


def has_global_seed_generator():
    """Whether `keras.random` has been used without a seed since the last `set_random_seed`."""
    name = seed_generator.GLOBAL_SEED_GENERATOR
    return global_state.get_global_attribute(name) is not None


def set_global_seed_generator(generator):
    """Replaces the generator behind `keras.random`; after `None`, the next use makes a new one."""
    global_state.set_global_attribute(seed_generator.GLOBAL_SEED_GENERATOR, generator)


def has_graph(model):
    """Whether a model does only what its graph says, as Sequential and Functional models do."""
    if getattr(model, "_functional", model) is None:
        # Some layer of a Sequential model cannot be called without data.
        return False
    return getattr(type(model), "call", None) in (Functional.call, Sequential.call)


def calls(model):
    """Yields the operation, inputs and outputs of each call in a model's graph, in order."""
    for node in _nodes(model):
        yield node.operation, node.input_tensors, node.outputs


def calls_with_arguments(model):
    """Yields the operation, arguments and outputs of each call in a model's graph, in order."""
    for node in _nodes(model):
        yield node.operation, [node.arguments.args, node.arguments.kwargs], node.outputs


def schedule_of(optimizer):
    """Returns the schedule that an optimizer takes its learning rate from, or `None`."""
    rate = optimizer._learning_rate
    return rate if isinstance(rate, LearningRateSchedule) else None


def without_penalties(model):
    """Returns the same model as another type, whose `losses` leave out weight penalties.

    Both share all attributes, so nothing has to be changed in the model and put back.
    """
    kind = type(model)
    methods = {"_get_regularization_losses": lambda _: []}
    same = object.__new__(type(kind)(kind.__name__, (kind,), methods))
    object.__setattr__(same, "__dict__", vars(model))
    return same


def _nodes(model):
    function = getattr(model, "_functional", model)
    for depth in sorted(function._nodes_by_depth, reverse=True):
        yield from function._nodes_by_depth[depth]
