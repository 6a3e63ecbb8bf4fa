"""What of a program a trace can hold."""
