"""How good maps are: what is measured of an explainer on chosen images."""
