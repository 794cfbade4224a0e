"""The metrics of the COCO caption tools: BLEU, ROUGE-L, CIDEr, METEOR, SPICE, in their units."""
