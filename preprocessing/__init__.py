"""Record files: checks, writing, shards, manifests, Beam."""
