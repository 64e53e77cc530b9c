"""A trained model as a file for other runtimes, which is written only where it decides as the bundle does."""
