"""What lives between calls: programs, weights, caches, and recovery from a failed call."""
