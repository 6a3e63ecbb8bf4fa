"""Compiled programs that outlive their process: what they are described by, and the folder that keeps them."""
