"""Speed and memory as ratios, each measured side by side with its peer in one run. `python -m benchmarks --help`."""
