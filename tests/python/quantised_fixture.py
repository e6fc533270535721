"""Writes tests/fixtures/quantised/bitsandbytes.safetensors: weights, and what PyPI's bitsandbytes makes of them.

NF4 in blocks of 64 with its absolute maxima quantised once more in blocks of 256, and int8 by rows. Run it with the
packages of tests/python/requirements-interop.txt; the tests of the Rust crates read the file and need no Python.
"""
import pathlib

import torch
from bitsandbytes import functional
from safetensors.torch import save_file

OUT = pathlib.Path(__file__).resolve().parent.parent / "fixtures/quantised/bitsandbytes.safetensors"


def nf4(weight):
    codes, state = functional.quantize_4bit(weight, blocksize=64, compress_statistics=True, quant_type="nf4")
    return {
        "nf4.codes": codes.flatten(),
        "nf4.absmax_codes": state.absmax,
        "nf4.absmax_absmax": state.state2.absmax,
        "nf4.absmax_map": state.state2.code,
        "nf4.offset": state.offset.reshape(1),
        "nf4.dequantised": functional.dequantize_4bit(codes, state),
    }


def int8(weight):
    codes, absmax, _ = functional.int8_vectorwise_quant(weight)
    return {"int8.codes": codes, "int8.absmax": absmax, "int8.dequantised": functional.int8_vectorwise_dequant(codes, absmax)}


def main():
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(11)
    spread = torch.logspace(-2, 0, 130).unsqueeze(1)
    weights = {
        # More blocks than one block of maxima holds, and rows of very different sizes.
        "wide": torch.randn(130, 128, generator=generator) * spread,
        # Ends within a block and within a byte.
        "odd": torch.randn(5, 13, generator=generator),
        # A block of zeros and a row of zeros.
        "zeros": torch.cat([torch.zeros(2, 64), torch.randn(2, 64, generator=generator)]),
    }
    tensors = {}
    for name, weight in weights.items():
        tensors[f"{name}.weight"] = weight.clone()
        for key, value in {**nf4(weight), **int8(weight)}.items():
            tensors[f"{name}.{key}"] = value.contiguous().clone()
    OUT.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, OUT, metadata={"format": "pt"})
    for name, tensor in tensors.items():
        print(name, tuple(tensor.shape), tensor.dtype)


if __name__ == "__main__":
    main()
