"""What a UNet is shown beside latents, by its configuration."""


class DecoderKind:
    """A part of UNetConfig."""

    in_channels: int
    out_channels: int
    addition_embed_type: str | None

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
