"""Ground truth for checking this implementation of LRP, and others."""
