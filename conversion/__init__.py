"""Conversion of checkpoints between TensorFlow and Hugging Face."""
