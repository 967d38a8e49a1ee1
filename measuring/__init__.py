"""How a point is measured: on which data, from which state, kept, resumed, shared out."""
