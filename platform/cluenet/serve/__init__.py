"""A trained model as an endpoint on Ray Serve."""
