"""What Hugging Face's own video processors make of frames, as a program of its own:

    python -m helpers.hf_video_processors REQUEST.npz RESULT.npz

The processors need torchvision, which the project does not. Where it is absent, the functions that they call are stood in for by
what torchvision itself calls for tensors on CPU: `torch.nn.functional.interpolate` on uint8, and (x - mean) / std. In a
process of its own because Transformers decides while it is imported what is installed.

A request holds, per case, `<case>/frames` (uint8 [T, H, W, C]) and `<case>/settings` (JSON with `family`, and the file's own).
A result holds `<case>/pixels`, and `<case>/grid` where there is one.
"""

from __future__ import annotations

import enum
import importlib.machinery
import json
import sys
import types
from importlib.util import find_spec

import numpy as np
import torch
import torch.nn.functional as F

CLASSES = {
    "qwen2_5_vl": "Qwen2VLVideoProcessor",
    "qwen3_vl": "Qwen3VLVideoProcessor",
    "llava_onevision": "LlavaOnevisionVideoProcessor",
    "internvl": "InternVLVideoProcessor",
    "smolvlm": "SmolVLMVideoProcessor",
}


class InterpolationMode(enum.Enum):
    NEAREST, NEAREST_EXACT, BILINEAR, BICUBIC = "nearest", "nearest-exact", "bilinear", "bicubic"
    BOX, HAMMING, LANCZOS = "box", "hamming", "lanczos"


def resize(image, size, interpolation, antialias=True, **_):
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    flat = image.reshape(-1, *image.shape[-3:])
    out = F.interpolate(flat, size=tuple(size), mode=interpolation.value, antialias=antialias, align_corners=False)
    return out.reshape(*image.shape[:-2], *size)


def normalize(image, mean, std, inplace=False):
    mean, std = (torch.as_tensor(value, dtype=image.dtype).view(-1, 1, 1) for value in (mean, std))
    return (image - mean) / std


def stand_in_for_torchvision() -> None:
    """Before transformers is imported."""
    names = ("", ".transforms", ".transforms.v2", ".transforms.functional", ".transforms.v2.functional", ".io")
    modules = {name: types.ModuleType(f"torchvision{name}") for name in names}
    for name, module in modules.items():
        module.__spec__ = importlib.machinery.ModuleSpec(module.__name__, None)
        module.__path__ = []
        sys.modules[module.__name__] = module
        parent, _, child = name.rpartition(".")
        if child:
            setattr(modules[parent], child, module)
    modules[""].__version__, modules[""].__file__ = "0.28.0", "stand-in"  # the version that goes with this torch
    modules[".transforms"].InterpolationMode = InterpolationMode
    modules[".transforms.functional"].pil_to_tensor = None
    tv = modules[".transforms.v2.functional"]
    tv.InterpolationMode, tv.resize, tv.normalize = InterpolationMode, resize, normalize
    tv.grayscale_to_rgb = lambda image: image  # frames have three channels here


def main(request: str, result: str) -> None:
    if find_spec("torchvision") is None:
        stand_in_for_torchvision()
    import transformers

    asked, made = np.load(request), {}
    for case in sorted({name.rpartition("/")[0] for name in asked.files}):
        settings = json.loads(str(asked[f"{case}/settings"]))
        processor = getattr(transformers, CLASSES[settings.pop("family")])(**settings)
        out = processor(videos=[asked[f"{case}/frames"]], return_tensors="pt", do_sample_frames=False)
        pixels = out["pixel_values_videos"] if "pixel_values_videos" in out else out["pixel_values"]
        made[f"{case}/pixels"] = pixels.numpy()
        if "video_grid_thw" in out:
            made[f"{case}/grid"] = out["video_grid_thw"].numpy()
    np.savez(result, **made)


if __name__ == "__main__":
    main(*sys.argv[1:])
