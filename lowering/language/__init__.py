"""Lowerings of language models: attention, one token a user, products with weights over the DRAM banks."""
