"""ATen graphs → programs: the loop, tracing, code, and what one run of it takes."""
