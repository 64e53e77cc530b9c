"""Classical recognition beside the network: features made by hand, or by a network that is not trained, and
scikit-learn.

Every function of `methods` is a baseline: it is fitted, scored and compared with the network without being named
anywhere else. `features` and `hog` make of images what the methods learn from, `file_features` of the files.
"""
