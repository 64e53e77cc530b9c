"""What every stage stands on: settings, artifacts, files, the commit, the W&B run, start and end."""
