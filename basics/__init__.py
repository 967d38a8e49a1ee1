"""What everything else stands on: refusals, and private names of Keras."""
