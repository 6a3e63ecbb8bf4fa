"""One spelling for each operation, move of data, dtype and index."""
