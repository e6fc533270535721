"""Writes tests/fixtures/optimizers: what PyTorch's optimisers, bitsandbytes' and transformers' schedules come to.

    pip install -r tests/python/requirements-interop.txt bitsandbytes==0.50.2
    python tests/python/optimizer_fixtures.py tests/fixtures/optimizers

Parameters and gradients follow from a formula (`numbers`) that src/model/optimizer/optimizer_tests.rs has too, so that only
results are stored: each parameter after the first and the last step, and the state after the last.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import (
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup,
    get_wsd_schedule,
)

SHAPES = {
    "layers.0.wide.weight": (16, 24),
    "layers.0.tall.weight": (24, 16),
    "layers.0.norm.weight": (20,),
    "embed_tokens.weight": (12, 8),
}
# Large enough to be quantised, and not a multiple of a block.
LARGE = {"layers.0.large.weight": (64, 67)}
STEPS = 6


def numbers(shape, seed):
    """Numbers of several magnitudes in (-1, 1), by integer arithmetic."""
    index = torch.arange(torch.Size(shape).numel(), dtype=torch.int64)
    spread = ((index * 7919 + seed * 104729) % 2003).double() / 1001.5 - 1.0
    scale = torch.tensor([1.0, 0.1, 0.01, 0.001], dtype=torch.float64)[(index + seed) % 4]
    return (spread * scale).float().reshape(shape)


def run(shapes, make):
    """`make` gives the optimisers of named parameters."""
    parameters = {name: torch.nn.Parameter(numbers(shape, 1 + i)) for i, (name, shape) in enumerate(shapes.items())}
    optimizers = make(parameters)
    out = {}
    for step in range(STEPS):
        for i, (name, parameter) in enumerate(parameters.items()):
            parameter.grad = numbers(shapes[name], 100 * (step + 1) + i)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group.setdefault("peak", group["lr"]) * (1.0 - step / 10)
            optimizer.step()
        if step in (0, STEPS - 1):
            out |= {f"after_{step + 1}.{name}": p.detach().clone() for name, p in parameters.items()}
    for optimizer in optimizers:
        for name, parameter in parameters.items():
            for part, tensor in optimizer.state.get(parameter, {}).items():
                # Steps and the levels of a quantisation are no state of a parameter.
                if torch.is_tensor(tensor) and tensor.dim() > 0 and not part.startswith("qmap"):
                    out[f"state.{name}.{part}"] = tensor.contiguous()
    return out


def muon(parameters, **settings):
    matrices = [p for name, p in parameters.items() if p.dim() == 2 and "embed" not in name]
    rest = [p for name, p in parameters.items() if p.dim() != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=0.02, weight_decay=0.1, **settings),
        torch.optim.AdamW(rest, lr=0.02, weight_decay=0.1, betas=(0.9, 0.95)),
    ]


def quantise_to_nearest():
    """Lets bitsandbytes' optimiser round to the nearest level, as its CUDA kernels do.

    Its kernel for f32 on the CPU looks levels up in a table that is coarse near zero; its path for f64 compares with every
    level. A second moment above zero is kept above zero here as there, lest its element move by the first moment over epsilon.
    """
    from bitsandbytes.backends.cpu import ops

    def quantise(values, code, absmax, out, blocksize):
        codes, scales = torch.ops.bitsandbytes.quantize_blockwise(values.double(), code, blocksize)
        if code[0] == 0:
            codes = torch.where((codes == 0) & (values > 0), 1, codes)
        out.copy_(codes)
        absmax.copy_(scales)

    ops._quant_blockwise_fp32_direct = quantise


def optimizers():
    """Settings by name; optimizer_tests.rs has the same."""
    import bitsandbytes

    quantise_to_nearest()
    optim = torch.optim
    yield "adamw", SHAPES, lambda p: [optim.AdamW(p.values(), lr=0.02, betas=(0.9, 0.95), eps=1e-6, weight_decay=0.1)]
    yield "adafactor", SHAPES, lambda p: [optim.Adafactor(p.values(), lr=0.02, weight_decay=0.1)]
    yield "adafactor_other", SHAPES, lambda p: [
        optim.Adafactor(p.values(), lr=0.5, beta2_decay=-0.5, eps=(1e-2, 0.5), d=2.0)
    ]
    yield "sgd", SHAPES, lambda p: [optim.SGD(p.values(), lr=0.02)]
    yield "sgd_momentum", SHAPES, lambda p: [optim.SGD(p.values(), lr=0.02, momentum=0.9, weight_decay=0.1)]
    yield "sgd_nesterov", SHAPES, lambda p: [
        optim.SGD(p.values(), lr=0.02, momentum=0.8, nesterov=True, weight_decay=0.1)
    ]
    yield "muon", SHAPES, lambda p: muon(p, adjust_lr_fn="match_rms_adamw")
    yield "muon_original", SHAPES, lambda p: muon(p, adjust_lr_fn="original", nesterov=False, momentum=0.8, ns_steps=3)
    yield "adamw_8bit", SHAPES | LARGE, lambda p: [
        bitsandbytes.optim.AdamW8bit(p.values(), lr=0.02, betas=(0.9, 0.95), eps=1e-6, weight_decay=0.1)
    ]


def schedules():
    """Rates of a peak of 2 over 20 steps, 4 of them warm-up and the last 6 decay."""
    makers = {
        "linear": lambda o: get_linear_schedule_with_warmup(o, 4, 20),
        "cosine": lambda o: get_cosine_schedule_with_warmup(o, 4, 20),
        "constant": lambda o: get_constant_schedule_with_warmup(o, 4),
    }
    for decay in ("linear", "cosine", "1-sqrt"):
        makers[f"wsd {decay}"] = lambda o, decay=decay: get_wsd_schedule(
            o, num_warmup_steps=4, num_decay_steps=6, num_training_steps=20, decay_type=decay
        )
    rates = {}
    for name, make in makers.items():
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
        schedule = make(optimizer)
        rates[name] = []
        for _ in range(20):
            rates[name].append(schedule.get_last_lr()[0])
            optimizer.step()
            schedule.step()
    return rates


def main():
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    # Muon iterates in bf16; our CPU path does so in f32, and is held to the same formulas in f32.
    torch.Tensor.bfloat16 = lambda tensor: tensor.float().clone()
    for name, shapes, make in optimizers():
        save_file(run(shapes, make), out / f"{name}.safetensors")
    (out / "schedules.json").write_text(json.dumps(schedules(), indent=1) + "\n")


if __name__ == "__main__":
    main()
