"""How a model is spread over ranks, beyond what Lightning brings: ZeRO by DeepSpeed."""
