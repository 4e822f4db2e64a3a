"""LoRA: files of small matrices whose products are added to a checkpoint's weights, at export or to a bundle that is there."""
