"""One page over all DVC experiments of a checkout: which is best, what it costs, and what cannot be told apart."""
