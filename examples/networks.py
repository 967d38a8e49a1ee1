"""Networks of the paper's experiments."""

import functools

import keras
from keras import layers

# The networks return logits: from probabilities, Keras clips the loss on JAX and Torch, at 16.1.
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def resnet(depth, input_shape=(32, 32, 3), classes=10, weight_decay=5e-4, width=1):
    """Builds a CIFAR ResNet v1.

    Args:
        depth: Number of layers, 6n + 2: for example 20, 56 or 110.
        input_shape: Shape of one image. Defaults to CIFAR's.
        classes: Number of classes. Defaults to 10.
        weight_decay: L2 penalty of all kernels. Defaults to 5e-4.
        width: How many times as many filters as published the three stages
            have, the k of wide networks. Defaults to 1.

    Returns:
        An uncompiled `keras.Model`.

    Reference:
        [He et al., 2015](https://arxiv.org/abs/1512.03385), section 4.2;
        [Zagoruyko & Komodakis, 2016](https://arxiv.org/abs/1605.07146) for the width.
    """
    return _stack_blocks(
        _residual_block, depth, input_shape, classes, weight_decay, width=width, name="resnet"
    )


def vgg_like(depth, input_shape=(32, 32, 3), classes=10, weight_decay=5e-4, width=1):
    """Builds the same network as `resnet`, but without shortcuts.

    Args:
        depth: Number of layers, 6n + 2: for example 20, 56 or 110.
        input_shape: Shape of one image. Defaults to CIFAR's.
        classes: Number of classes. Defaults to 10.
        weight_decay: L2 penalty of all kernels. Defaults to 5e-4.
        width: How many times as many filters as published the three stages
            have, the k of wide networks. Defaults to 1.

    Returns:
        An uncompiled `keras.Model`.

    Reference:
        [Li et al., 2018](https://arxiv.org/abs/1712.09913), section 6, where it
        is called "ResNet-noshort".
    """
    return _stack_blocks(
        _plain_block, depth, input_shape, classes, weight_decay, width=width, name="vgg_like"
    )


FAMILIES = {"ResNet": resnet, "VGG-like": vgg_like}


def _stack_blocks(block, depth, input_shape, classes, weight_decay, *, width, name):
    """Three stages of blocks, each at half the resolution of the previous one."""
    convolution, dense = _layer_makers(weight_decay)
    blocks, remainder = divmod(depth - 2, 6)
    if remainder:
        raise ValueError(f"`depth` must be 6n + 2, for example 20, 56 or 110. Received {depth}.")
    inputs = keras.Input(input_shape)
    x = layers.ReLU()(convolution(inputs, 16))
    for stage, filters in enumerate((16 * width, 32 * width, 64 * width)):
        for index in range(blocks):
            strides = 2 if stage > 0 and index == 0 else 1
            x = block(convolution, x, filters, strides)
    x = layers.GlobalAveragePooling2D()(x)
    name = f"{name}{depth}" if width == 1 else f"{name}{depth}x{width}"
    return keras.Model(inputs, dense(classes)(x), name=name)


def _residual_block(convolution, x, filters, strides):
    is_same_shape = strides == 1 and x.shape[-1] == filters
    shortcut = x if is_same_shape else convolution(x, filters, strides, size=1)
    y = layers.ReLU()(convolution(x, filters, strides))
    return layers.ReLU()(layers.Add()([convolution(y, filters), shortcut]))


def _plain_block(convolution, x, filters, strides):
    y = layers.ReLU()(convolution(x, filters, strides))
    return layers.ReLU()(convolution(y, filters))


def _layer_makers(weight_decay):
    # Even with 0, so that the loss without penalty is measured for every network.
    regularizer = keras.regularizers.L2(weight_decay)
    kernel = {"kernel_initializer": "he_normal", "kernel_regularizer": regularizer}

    def convolution(x, filters, strides=1, size=3):
        convolved = layers.Conv2D(filters, size, strides, padding="same", use_bias=False, **kernel)(
            x
        )
        # The paper's momentum: with Keras' 0.99, after the few hundred steps of large batches, the
        # statistics would still be close to the initial ones, and accuracy and loss meaningless.
        return layers.BatchNormalization(momentum=0.9)(convolved)

    return convolution, functools.partial(layers.Dense, **kernel)
