"""What a program on several chips does beside what one on a single chip does."""
