"""The shard engine: read ahead, infer, write behind; see `zmill.predict.engine`."""
