"""Tasks: data, features, heads' losses, metrics and predictions."""
