"""Ways to run graphs, all behind interface.Engine. Importing this loads none of them."""

from typing import cast

from .interface import Engine, EngineError, LiteModel, ModelFileEngine, PackedModel, Say, TensorSpec, say_on_stderr
from .precision import choose

__all__ = ["ENGINES", "Engine", "EngineError", "LiteModel", "ModelFileEngine", "PackedModel", "TensorSpec", "create"]

ENGINES = ("auto", "bridge", "mindspore", "vendor")


def create(name: str = "auto", say: Say = say_on_stderr, precision: str = "float32") -> Engine:
    """The engine called `name`; UserError when it cannot be had.

    "bridge", which "auto" means, is our own program over Lite's C++ libraries: it is installed at first use, and
    `say` is told what goes on. "vendor" is the `mindspore_lite` package, where the running Python can import it.
    "mindspore" is MindSpore itself, which the extra of that name installs. precision: of its products and convolutions, see
    precision.choose; the vendor's package and MindSpore compute in float32.
    """
    chosen = choose(precision, say)
    if name in ("auto", "bridge"):
        from .bridge import BridgeEngine

        return BridgeEngine(say, precision=chosen)
    if name in ENGINES and precision not in ("float32", "auto"):
        raise EngineError(f"the engine {name!r} computes in float32, not {precision}: use the engine 'bridge'")
    if name == "mindspore":
        from .framework.engine import MindSporeEngine

        return MindSporeEngine()
    if name == "vendor":
        from .vendor import VendorEngine

        return cast(Engine, VendorEngine(EngineError))  # it stands alone, so its TensorSpec is a class of its own
    raise EngineError(f"unknown engine {name!r}: use one of {', '.join(ENGINES)}")
