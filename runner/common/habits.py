"""Options that diffusers' users give out of habit, and that mean nothing for a bundle."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

from .errors import UserError

# Options of diffusers' and mindone's from_pretrained that say how a checkpoint is found, read or placed.
WITHOUT_MEANING = frozenset((
    "cache_dir", "custom_pipeline", "custom_revision", "device_map", "disable_mmap", "dtype", "force_download",
    "local_files_only", "low_cpu_mem_usage", "max_memory", "mindspore", "mindspore_dtype", "mirror", "offload_folder",
    "offload_state_dict", "output_loading_info", "proxies", "resume_download", "revision", "subfolder", "token", "torch_dtype",
    "trust_remote_code", "use_auth_token", "use_onnx", "use_safetensors", "variant",
))  # fmt: skip


def without_meaning(given: Iterable[str], known: Iterable[str], where: str) -> None:
    """Warn, in one line, of the options `given` that mean nothing for a bundle; UserError for one that nobody knows."""
    unknown = [name for name in given if name not in WITHOUT_MEANING]
    if unknown:
        raise UserError(f"{where} has no option {', '.join(unknown)}; it has {', '.join(known)}")
    if given:
        warnings.warn(f"{', '.join(given)}: this means nothing for a bundle, which is a folder and computes in float32",
                      stacklevel=3)
