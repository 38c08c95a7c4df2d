"""Encoders and heads of BERT and Funnel-Transformer, and their configurations."""
