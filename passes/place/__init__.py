"""Where each node runs, how each value lies there, and when it is freed."""
