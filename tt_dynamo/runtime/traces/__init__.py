"""Programs whose device part is captured once and replayed."""
