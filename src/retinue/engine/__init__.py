"""What every computing stage stands on: the Trainer, its progress bar, loading, writing, reproducible draws."""
