"""Tokenizers and vocabularies; import them from `tokenization`."""
