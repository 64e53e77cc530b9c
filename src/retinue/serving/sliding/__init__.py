"""Scoring larger images in one pass: fully connected layers as convolutions that slide over the image."""
