"""Lowerings of images: convolutions, pools, and pixels that are moved."""
