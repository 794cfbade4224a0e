"""Text towers: networks from token ids to one pooled vector a text. Each file is one; none imports another's."""
