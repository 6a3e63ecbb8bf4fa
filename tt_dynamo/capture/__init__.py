"""Dynamo graphs → functional ATen graphs: inputs, decompositions, dynamic sizes."""
