"""Trained models in use: prediction from Python, SavedModels, features."""
