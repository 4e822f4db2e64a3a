"""The UNet in pieces that run one after another: one graph cannot hold more than 2 GB of weights as Lite's own format.

The seams are those between blocks. What crosses them has names: ``time``, the skips ``skip_0``, ``skip_1``, ... in order
of their making, and ``up_0``, ... the picture after the middle block and after each up block. While going down, the
picture is the latest skip.
"""

from typing import NamedTuple

from mindspore import nn

from .unet import UNet


class Piece(NamedTuple):
    """Consecutive stages (down blocks, middle block, up blocks: numbered in order of execution) and what crosses."""

    first: int
    last: int
    inputs: tuple
    outputs: tuple


class UNetPiece(UNet):
    """A piece of UNet, with the parameters' names of the whole; its inputs and outputs are `piece`'s, in order."""

    def __init__(self, config, piece):
        super().__init__(config)
        self.levels, self.piece = len(config.block_out_channels), piece
        self.starts, self.ends = piece.first == 0, piece.last == 2 * self.levels
        self.attended = "added_kv" in piece.inputs
        absent = [stage for stage in range(2 * self.levels + 1) if not piece.first <= stage <= piece.last]
        for stage in absent:  # or the compiler would carry their weights along
            if stage < self.levels:
                self.down_blocks[stage] = nn.Identity()
            elif stage == self.levels:
                self.mid_block = nn.Identity()
            else:
                self.up_blocks[stage - self.levels - 1] = nn.Identity()

    def construct(self, *tensors):
        added_kv, tensors = (tensors[-1], tensors[:-1]) if self.attended else (None, tensors)
        if self.starts:
            sample, time_proj, time_addition = tensors
            time = self.act(self.time_embedding(time_proj) + time_addition)
            skips = (self.conv_in(sample),)
            made = (time,) + skips
        else:
            time, skips, made = tensors[0], tensors[1:], ()
        x = skips[-1]
        if self.piece.first > self.levels:  # the picture is no skip on the way up
            skips = skips[:-1]
        for stage in range(self.piece.first, self.piece.last + 1):
            if stage < self.levels:
                x, outputs = self.down_blocks[stage](x, time, added_kv)
                skips, made = skips + outputs, made + outputs
            elif stage == self.levels:
                x = self.mid_block(x, time, added_kv)
            else:
                block = self.up_blocks[stage - self.levels - 1]
                x = block(x, skips, time, added_kv)
                skips = skips[:-len(block.resnets)]
        if self.ends:
            return self.conv_out(self.act(self.conv_norm_out(x)))
        return made if self.piece.last < self.levels else made + (x,)


def cut(unet, config, limit):
    """The Pieces of a UNet cell such that no piece has more than `limit` bytes of weights, unless one block has."""
    levels = len(config.block_out_channels)
    stages = [*unet.down_blocks, unet.mid_block, *unet.up_blocks]
    sizes = [sum(4 * parameter.size for parameter in stage.get_parameters()) for stage in stages]
    groups = [[0]]
    for stage in range(1, len(stages)):
        if sum(sizes[other] for other in groups[-1]) + sizes[stage] > limit:
            groups.append([])
        groups[-1].append(stage)

    made = [len(block.resnets) + len(block.downsamplers) for block in unet.down_blocks]
    ends = [1 + sum(made[: i + 1]) for i in range(levels)]  # how many skips there are after each down block
    attended = [len(stage.attentions) > 0 for stage in stages]
    pieces = []
    for group in groups:
        first, last = group[0], group[-1]
        start = ends[min(first, levels) - 1] if first else 0
        inputs = ("sample", "time_proj", "time_addition") if first == 0 else ("time",)
        if first > levels:  # up blocks take skips from the latest on
            used = [len(block.resnets) for block in unet.up_blocks]
            start = ends[-1] - sum(used[: first - levels - 1])
            inputs += skips(start - sum(used[first - levels - 1 : last - levels]), start) + (f"up_{first - levels - 1}",)
        elif first:
            # the latest skip is the picture; earlier ones are needed if the piece reaches the up blocks
            used = sum(len(block.resnets) for block in unet.up_blocks[: max(last - levels, 0)])
            inputs += skips(min(ends[-1] - used, start - 1), start)
        inputs += ("added_kv",) if any(attended[first : last + 1]) else ()
        outputs = ("time",) if first == 0 else ()
        outputs += skips(start, ends[min(last, levels - 1)]) if first < levels else ()
        outputs += (f"up_{last - levels}",) if last >= levels else ()
        pieces.append(Piece(first, last, inputs, ("model_output",) if last == 2 * levels else outputs))
    return pieces


def skips(start, end):
    return tuple(f"skip_{i}" for i in range(start, end))
