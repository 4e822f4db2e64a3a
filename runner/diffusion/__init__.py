"""The denoising loop, guidance, and where noise comes from."""
