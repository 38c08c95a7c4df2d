"""Training, evaluation and prediction with an estimator."""
