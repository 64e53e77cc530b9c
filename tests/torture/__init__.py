"""The fault harness: kills, failing writes and doubled runs, and what has to be there afterwards."""
