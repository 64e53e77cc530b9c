"""The pages a team reviews: charts and templates, made of artifacts only."""
