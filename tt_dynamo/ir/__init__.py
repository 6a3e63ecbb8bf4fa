"""The vocabulary that every other folder shares: values and their specs, nodes and their facts, operators, errors."""
