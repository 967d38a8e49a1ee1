"""Networks of the paper's experiments."""

import keras
from keras import layers


def resnet(depth, input_shape=(32, 32, 3), classes=10, weight_decay=5e-4):
    """Builds a CIFAR ResNet v1.

    Args:
        depth: 6n + 2 layers: 20, 56, 110.
        input_shape: Shape of one image. Defaults to CIFAR's.
        classes: Number of classes. Defaults to 10.
        weight_decay: L2 penalty of all kernels. Defaults to 5e-4.

    Returns:
        An uncompiled `keras.Model`.

    Reference:
        [He et al., 2015](https://arxiv.org/abs/1512.03385), section 4.2.
    """
    blocks, remainder = divmod(depth - 2, 6)
    if remainder:
        raise ValueError(f"`depth` must be 6n + 2, such as 20, 56 or 110. Received {depth}.")
    regularizer = keras.regularizers.L2(weight_decay) if weight_decay else None

    def convolution(x, filters, strides=1, size=3):
        convolved = layers.Conv2D(
            filters,
            size,
            strides,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
            kernel_regularizer=regularizer,
        )(x)
        return layers.BatchNormalization()(convolved)

    inputs = keras.Input(input_shape)
    x = layers.ReLU()(convolution(inputs, 16))
    for stage, filters in enumerate((16, 32, 64)):
        for block in range(blocks):
            strides = 2 if stage > 0 and block == 0 else 1
            shortcut = x if strides == 1 else convolution(x, filters, strides, size=1)
            y = layers.ReLU()(convolution(x, filters, strides))
            x = layers.ReLU()(layers.Add()([convolution(y, filters), shortcut]))
    x = layers.GlobalAveragePooling2D()(x)
    outputs = layers.Dense(
        classes,
        activation="softmax",
        kernel_initializer="he_normal",
        kernel_regularizer=regularizer,
    )(x)
    return keras.Model(inputs, outputs, name=f"resnet{depth}")
