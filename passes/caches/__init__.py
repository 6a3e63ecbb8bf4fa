"""KV caches, and one token of each user."""
