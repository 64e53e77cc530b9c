"""The learning-rate range test: which rates train this network on these images."""
