"""What a UNet is shown beside latents, and what its inner layers hand to the outermost, by its configuration."""


class DecoderKind:
    """A part of UNetConfig."""

    in_channels: int
    out_channels: int
    addition_embed_type: str | None
    block_out_channels: tuple[int, ...]
    layers_per_block: int
    down_block_types: tuple[str, ...]
    up_block_types: tuple[str, ...]

    @property
    def decoder(self) -> str:
        """Of which kind of decoder it is: "decoder" (text to image), "inpaint" or "controlnet"."""
        half = self.in_channels // 2
        masked = self.in_channels % 2 and self.out_channels in (half, 2 * half)
        return "controlnet" if self.addition_embed_type == "image_hint" else "inpaint" if masked else "decoder"

    @property
    def latent_channels(self) -> int:
        """Of in_channels; the others are a masked picture and its mask, or what a hint became."""
        return self.in_channels if self.decoder == "decoder" else self.in_channels // 2

    @property
    def deep_channels(self) -> int:
        """Channels of what the last two resnets take from the layers before them; 0 where attentions stand between those."""
        if "CrossAttn" in self.down_block_types[0] + self.up_block_types[-1]:
            return 0
        return self.block_out_channels[1 if self.layers_per_block == 1 and len(self.block_out_channels) > 1 else 0]
