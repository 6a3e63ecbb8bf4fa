"""Loops over tokens, before anything else: what is left of one is as short as a layer."""
