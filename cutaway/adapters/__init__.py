"""LoRA on a loaded model: which layers, their files in PEFT's format, and the methods of a model that handle them."""
