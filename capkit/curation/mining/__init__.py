"""Mining: which images of a split look alike, and groups of them."""
