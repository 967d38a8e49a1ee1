"""What everything else stands on: checks of arguments, and the private names of Keras."""
