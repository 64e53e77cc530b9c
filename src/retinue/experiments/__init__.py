"""The DVC experiments of this checkout, and which of what they hold is theirs."""
