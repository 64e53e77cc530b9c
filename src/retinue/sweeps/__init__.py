"""Sweeps: Hydra multirun in which every job is a DVC experiment, and Optuna says what to try next."""
