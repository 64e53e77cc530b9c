"""A trained model in use: on new images, on images larger than those of training, and in other runtimes."""
