"""Metrics of the COCO caption tools, in their units: BLEU, ROUGE-L, CIDEr, METEOR, SPICE."""
