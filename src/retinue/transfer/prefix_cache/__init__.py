"""The frozen-prefix cache: what frozen layers make of the images, computed once and kept on disk.

Where the layers stay as they are and the images, too (no augmentation in training, or copies made beforehand), their
outputs are the same in every epoch, and training needs the layers behind them only.
"""
