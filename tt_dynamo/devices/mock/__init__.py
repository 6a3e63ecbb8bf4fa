"""TTNN's mock cluster: what it needs on disk."""
