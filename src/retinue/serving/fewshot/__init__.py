"""`retinue fewshot`: how well the features of a trained network tell classes that it does not know."""
