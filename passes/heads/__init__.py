"""Heads of attention: how they are split, and padded to whole tiles."""
