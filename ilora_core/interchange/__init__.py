"""Adapters from other tools and for other tools: LoRA files in, ComfyUI, diffusers, ONNX and merged models out."""
