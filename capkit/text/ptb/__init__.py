"""The COCO tools' English tokenizer in Python (see `tokenizer`)."""

from capkit.text.ptb.tokenizer import ptb_text, ptb_tokenize, ptb_words

__all__ = ["ptb_text", "ptb_tokenize", "ptb_words"]
