"""HATS catalogues on disk: layout, partitions, shards, content hashes."""
