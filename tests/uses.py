"""Ways of using a pipeline, each as a function that makes a picture of the same noise."""

import copy
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.hooks import apply_group_offloading
from torch import Tensor

from fair_adaptors.adaptor.record import WEIGHTS_FILE
from tests.single_file import write_single_file
from tests.tiny import animated, ip_adapter, tiny_pipeline, tiny_xl_pipeline, with_unet, write_tiny_adaptor
from tests.unwritable import out_of_memory, to_disk

Use = Callable[[Any, Path], tuple[Any, Callable[[], Any]]]
"""Of a pipeline and a folder to write into: the pipeline to load into, and what draws a picture."""

CPU = torch.device("cpu")


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def draw(pipe: Any, prompt: Any = "a nurse", **settings: Any) -> Tensor:
    """What a pipeline makes of the same noise: latents, or frames of them."""
    pipe.set_progress_bar_config(disable=True)
    given = {"num_inference_steps": 2, "output_type": "latent", "generator": torch.Generator().manual_seed(0)}
    found = pipe(prompt, **given | settings)
    return found.frames if hasattr(found, "frames") else found.images


def drawn(change: Callable[[Any], Any] = lambda pipe: None, **settings: Any) -> Use:
    """Use of a pipeline as it is, or as something that was done to it left it."""
    return lambda pipe, _: (change(pipe), (pipe, lambda: draw(pipe, **settings)))[1]


def made(name: str, change: Callable[[Any], Any] = lambda pipe: pipe, *, more: Any = dict, **settings: Any) -> Use:
    """Use of another class of diffusers, made of the parts of a pipeline."""

    def use(pipe: Any, _: Path) -> tuple[Any, Callable[[], Any]]:
        other = getattr(diffusers, name).from_pipe(change(pipe), **more())
        return other, lambda: draw(other, **settings)

    return use


def seeded(kind: str, **settings: Any) -> Any:
    """Return a model of diffusers' that comes beside, with the same random weights each time."""
    torch.manual_seed(7)
    model = getattr(diffusers, kind)(**settings).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


def controlled() -> dict[str, Any]:
    config = {key: value for key, value in tiny_pipeline().unet.config.items() if not key.startswith("_")}
    known = inspect.signature(diffusers.ControlNetModel).parameters
    config = {key: value for key, value in config.items() if key in known}
    return {"controlnet": seeded("ControlNetModel", **config | {"conditioning_embedding_out_channels": (8, 16)})}


def consistent(pipe: Any) -> Any:
    """A pipeline whose U-Net and scheduler are of the kind that LCM distils."""
    pipe.register_modules(scheduler=diffusers.LCMScheduler.from_config(pipe.scheduler.config))
    return with_unet(pipe, time_cond_proj_dim=8)


def with_ip_adapter(pipe: Any, _: Path) -> tuple[Any, Callable[[], Any]]:
    torch.manual_seed(7)
    pipe = ip_adapter(pipe)
    return pipe, lambda: draw(pipe, ip_adapter_image_embeds=[noise(2, 1, 32)])


def with_motion(pipe: Any, _: Path) -> tuple[Any, Callable[[], Any]]:
    torch.manual_seed(7)
    other = animated(pipe)
    return other, lambda: draw(other, num_frames=2)


def scheduled(name: str) -> Use:
    kind = getattr(diffusers, name)

    def change(pipe: Any) -> None:
        pipe.register_modules(scheduler=kind.from_config(pipe.scheduler.config))

    return drawn(change, num_inference_steps=4)  # PNDM takes no fewer


def embedded(pipe: Any, prompt: str = "a nurse") -> dict[str, Tensor]:
    """What compel hands over: embeddings in place of prompts."""
    with torch.no_grad():
        positive, negative = pipe.encode_prompt(prompt, "cpu", 1, True)
    return {"prompt_embeds": positive, "negative_prompt_embeds": negative}


def from_embeddings(pipe: Any, _: Path) -> tuple[Any, Callable[[], Any]]:
    return pipe, lambda: draw(pipe, None, **embedded(pipe))


def from_long_prompts(pipe: Any, _: Path) -> tuple[Any, Callable[[], Any]]:
    def use() -> Tensor:
        pieces = [embedded(pipe, prompt) for prompt in ("a nurse", "in a harbor")]
        return draw(pipe, None, **{key: torch.cat([piece[key] for piece in pieces], 1) for key in pieces[0]})

    return pipe, use


def encoded_then_denoised(pipe: Any, _: Path) -> tuple[Any, Callable[[], Any]]:
    """The adaptor of a text encoder goes into the half that encodes."""
    first = type(pipe)(**pipe.components | {"unet": None}, requires_safety_checker=False)
    second = type(pipe)(**pipe.components | {"text_encoder": None, "tokenizer": None}, requires_safety_checker=False)
    return first, lambda: draw(second, None, **embedded(first))


def refined(pipe: Any, _: Path) -> tuple[Any, Callable[[], Any]]:
    """A refiner has a network of its own, and shares the second text encoder."""
    parts = tiny_xl_pipeline(seed=5).components | {"text_encoder_2": pipe.text_encoder_2, "vae": pipe.vae}
    refiner = diffusers.StableDiffusionXLImg2ImgPipeline(**parts, add_watermarker=False)
    return pipe, lambda: draw(
        refiner, num_inference_steps=4, denoising_start=0.5, image=draw(pipe, num_inference_steps=4, denoising_end=0.5)
    )


def stopped_early(pipe: Any, step: int, _: Any, given: dict[str, Any]) -> dict[str, Any]:
    pipe._interrupt = step == 0
    return {"latents": given["latents"] * 0.9}


def learned_word(pipe: Any) -> None:
    pipe.load_textual_inversion({"<word>": noise(1, 32, seed=3)[0]}, token="<word>")


def with_loras(after: Callable[[Any, Path], Any] = lambda pipe, folder: None) -> Use:
    """Two LoRAs of other people's in the pipeline, and what is done with them."""

    def use(pipe: Any, folder: Path) -> tuple[Any, Callable[[], Any]]:
        for seed in (2, 3):
            name = f"other{seed}"
            path = write_tiny_adaptor(folder / name, tiny_pipeline(), seed=seed, parts=("unet",))
            pipe.load_lora_weights(path, weight_name=WEIGHTS_FILE, adapter_name=name)
        pipe.set_adapters(["other2", "other3"], [0.3, 0.4])
        after(pipe, folder)
        return pipe, lambda: draw(pipe)

    return use


def swapped(pipe: Any, folder: Path) -> None:
    pipe.load_lora_weights(folder / "other3", weight_name=WEIGHTS_FILE, adapter_name="other2", hotswap=True)


def saved(pipe: Any, folder: Path) -> tuple[Any, Callable[[], Any]]:
    pipe.save_pretrained(folder / "saved")
    other = type(pipe).from_pretrained(folder / "saved")
    return other, lambda: draw(other)


def in_one_file(pipe: Any, folder: Path) -> tuple[Any, Callable[[], Any]]:
    pipe.save_pretrained(folder / "saved")
    file = write_single_file(pipe, folder / "model.safetensors")
    other = type(pipe).from_single_file(str(file), config=str(folder / "saved"))
    return other, lambda: draw(other)


def copied(pipe: Any, _: Path) -> tuple[Any, Callable[[], Any]]:
    other = copy.deepcopy(pipe)
    return other, lambda: draw(other)


def hooked(pipe: Any) -> None:
    """What enable_model_cpu_offload leaves; it itself needs an accelerator."""
    from accelerate import cpu_offload_with_hook

    for model in (pipe.text_encoder, pipe.unet, pipe.vae):
        cpu_offload_with_hook(model, CPU)


def grouped(pipe: Any) -> None:
    for model in (pipe.text_encoder, pipe.unet):
        apply_group_offloading(model, CPU, CPU, "leaf_level")


def without_gradients(pipe: Any, _: Path) -> tuple[Any, Callable[[], Any]]:
    return pipe, torch.inference_mode()(lambda: draw(pipe))


def on_disk(pipe: Any, folder: Path) -> tuple[Any, Callable[[], Any]]:
    to_disk(pipe, folder)
    return pipe, lambda: draw(pipe)


PICTURE = noise(1, 3, 16, 16).sigmoid()
MASK = (noise(1, 1, 16, 16) > 0).float()
SHARED: dict[str, Use] = {
    "text to image": drawn(),
    "image to image": made("StableDiffusionImg2ImgPipeline", image=PICTURE),
    "inpainting": made("StableDiffusionInpaintPipeline", image=PICTURE, mask_image=MASK, height=16, width=16),
    "ControlNet": made("StableDiffusionControlNetPipeline", more=controlled, image=PICTURE),
    "PAG": made("StableDiffusionPAGPipeline", more=lambda: {"pag_applied_layers": "mid"}),
    "IP-Adapter": with_ip_adapter,
    "torch.compile": drawn(lambda pipe: pipe.unet.compile(backend="eager")),
    "enable_model_cpu_offload": drawn(hooked),
    "group offloading": drawn(grouped),
    "fuse_qkv_projections": drawn(lambda pipe: pipe.fuse_qkv_projections(vae=False)),
    "channels_last": drawn(lambda pipe: pipe.unet.to(memory_format=torch.channels_last)),
    "FreeU": drawn(lambda pipe: pipe.enable_freeu(0.9, 0.2, 1.2, 1.4)),
    "attention slicing": drawn(lambda pipe: pipe.enable_attention_slicing(1)),
    "torch.inference_mode": without_gradients,
    "prompt_embeds (compel)": from_embeddings,
    "long prompts in pieces": from_long_prompts,
    "callbacks that change or stop": drawn(num_inference_steps=3, callback_on_step_end=stopped_early),
    "several prompts and images": drawn(prompt=["a nurse", "a guard"], num_images_per_prompt=2),
    "textual inversion": drawn(learned_word, prompt="a <word> nurse"),
    "several LoRAs, set_adapters": with_loras(),
    "unfuse_lora": with_loras(lambda pipe, _: (pipe.fuse_lora(), pipe.unfuse_lora())),
    "delete_adapters": with_loras(lambda pipe, _: pipe.delete_adapters("other2")),
    "disable_lora": with_loras(lambda pipe, _: pipe.disable_lora()),
    "hot-swapped LoRAs": with_loras(swapped),
    "unload_lora_weights": with_loras(lambda pipe, _: pipe.unload_lora_weights()),
    **{
        f"{name}Scheduler": scheduled(f"{name}Scheduler")
        for name in ("DDIM", "PNDM", "EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete", "UniPCMultistep")
    },
}
"""Ways of use that may come before loading or after it: the modules stay the same, and stay in memory."""
FIRST: dict[str, Use] = {
    "inpainting with nine channels": made(
        "StableDiffusionInpaintPipeline",
        lambda pipe: with_unet(pipe, in_channels=9),
        image=PICTURE,
        mask_image=MASK,
        height=16,
        width=16,
    ),
    "InstructPix2Pix": made(
        "StableDiffusionInstructPix2PixPipeline", lambda pipe: with_unet(pipe, in_channels=8), image=PICTURE
    ),
    "LCM's own U-Net": made("LatentConsistencyModelPipeline", consistent),
    "AnimateDiff": with_motion,
    "deepcopy": copied,
    "save_pretrained, from_pretrained": saved,
    "one .safetensors file": in_one_file,
    "enable_sequential_cpu_offload": drawn(out_of_memory),
    "group offloading to disk": on_disk,
    "XL with its refiner": refined,
    "XL with clip_skip": drawn(clip_skip=1),
    "fuse_lora": with_loras(lambda pipe, _: pipe.fuse_lora()),
    "encode, then denoise": encoded_then_denoised,
}
"""Ways of use that come first: they make modules anew, or take their weights out of memory."""
USES = SHARED | FIRST
PARTS = {"encode, then denoise": ("text_encoder",)} | dict.fromkeys(
    ("XL with its refiner", "XL with clip_skip"), ("text_encoder_2", "unet")
)
"""What the adaptors for them change; of others text encoder and U-Net."""


def base_of(name: str) -> Callable[[], Any]:
    return tiny_xl_pipeline if "XL" in name else tiny_pipeline
