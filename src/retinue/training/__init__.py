"""Interchangeable parts of training: losses, schedules, callbacks."""
