"""Decoding, resizing, storing, splitting and augmenting images."""
