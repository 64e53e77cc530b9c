"""Where results come from, and the same results again."""
