"""retinue: declarative image classification as a DVC pipeline of Lightning stages."""
