"""In which form weights go up, where that depends on what TTNN takes and on the estimate."""
