"""A trained model as a service: `retinue serve`."""
