"""Moves of data: fewer of them, later ones, and none twice."""
