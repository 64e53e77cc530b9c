"""New images through a trained model: `retinue predict`."""
