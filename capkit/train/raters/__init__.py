"""Training of raters."""
