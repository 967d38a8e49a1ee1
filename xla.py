"""XLA: compiles a graph further, once it has been used enough for that to pay off.

On the CPU, XLA takes a third to two thirds of TensorFlow's time for a point of a small network,
but half a second to compile: as long as it saves on several hundred points.
"""

import numpy as np
import tensorflow as tf

# How many points a graph measures before it is compiled: as many as take as long as compiling.
MINIMUM = 800
# For more weights than this, time goes into products of matrices, in which XLA is no faster.
LARGEST = 2**18
# Parts of the names of operations with which XLA is slower, or random numbers differ.
UNSUITED = ("Conv", "Pool", "Random", "Rng")
# XLA does not round to these types where TensorFlow does.
COARSE = {tf.float16.as_datatype_enum, tf.bfloat16.as_datatype_enum}


def accelerated(graph):
    """Lets XLA take over a graph that measures points, once it has measured enough of them.

    Args:
        graph: A concrete function of directions, of an array of points, of the number of
            points at its beginning to measure, and of anything else. It returns an array of
            what was measured.

    Returns:
        A function of the same arguments that returns the same, up to rounding.
    """
    measured, fast = 0, None

    def measure(directions, points, number, *others):
        nonlocal measured, fast
        arguments = directions, points, number, *others
        measured += int(number)
        if fast is None and measured >= MINIMUM:
            fast = _compiled(graph) if _is_suited(graph, directions) else graph
        # A single point may be the center, which is compared with that of other calls.
        if fast in (None, graph) or number == 1:
            return graph(*arguments)
        try:
            values = fast(*arguments)
        except tf.errors.OpError:
            # It holds something that XLA cannot compile, such as strings.
            fast = graph
            return graph(*arguments)
        # The class of the largest of several NaN, for example, is another one with XLA.
        return values if np.isfinite(values[:number]).all() else graph(*arguments)

    return measure


def _compiled(graph):
    # TensorFlow refuses a concrete function itself. The model is not traced again.
    def call(*arguments):
        return graph(*arguments)

    return tf.function(call, autograph=False, jit_compile=True)


def _is_suited(graph, directions):
    """Whether XLA is known to be faster, with the same numbers."""
    first, *_ = directions
    number_of_weights = sum(array.shape.num_elements() for array in first)
    if tf.config.list_logical_devices("GPU") or number_of_weights > LARGEST:
        return False
    nodes = [node for part in graph.graph.as_graph_def().library.function for node in part.node_def]
    is_unsuited = any(part in node.op for node in nodes for part in UNSUITED)
    types = {attribute.type for node in nodes for attribute in node.attr.values()}
    return not is_unsuited and not types & COARSE
