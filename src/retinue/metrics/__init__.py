"""Metrics as pure functions of stored predictions.

Every public function of `scalar` and of `per_class` is a metric: it is computed, written to evaluation/metrics.json
and tested without being named anywhere else. The other modules hold what has a shape of its own: curves, confusion
matrix, calibration, intervals.
"""
