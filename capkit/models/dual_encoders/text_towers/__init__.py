"""Text towers: networks from token ids to one pooled vector per text, one per file, independent of each other."""
