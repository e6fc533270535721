"""`make interop-llama`: what `finetuned-engine merge` writes loads in llama.cpp with the logits that the engine computes.

For each reference case of an architecture that GGUF files are written of: the model with its adapter put in, in F16, and the
adapter beside the base model. SmolLM2 in Q8_0 is what llama.cpp's own quantiser makes of the F16 file, number by number, as our
engine reads both; it is not run there, since llama.cpp's kernels for quantised weights crash on some hosts (AMX in virtual
machines), on its own files as well. Needs `requirements-llama.txt`, which compiles llama.cpp.
"""
import argparse
import ctypes
import json
import pathlib
import subprocess
import sys
import tempfile

import llama_cpp
import numpy
from llama_cpp import Llama
from safetensors.numpy import load_file

CASES = ["llama", "llama-tied-bias", "llama-rope-linear", "llama-rope-yarn", "llama3-rope", "qwen2", "qwen3"]
FIXTURES = pathlib.Path(__file__).resolve().parents[1] / "fixtures/parity"
# Share of the largest logit. llama.cpp rounds weights, activations and its cache to half precision: up to 2.3e-3 was seen, where
# another order of rows or a missing bias moves logits by tenths.
TOLERANCE = 4e-3
Q8_0 = 7  # llama.cpp's number of that type of file


def engine(binary, command, *options):
    done = subprocess.run([binary / "finetuned-engine", command, *map(str, options)], capture_output=True, text=True, timeout=120)
    if done.returncode:
        sys.exit(f"finetuned-engine {command} failed:\n{done.stderr[-2000:]}")


def engine_logits(binary, model, adapter, ids, folder):
    (folder / "ids.json").write_text(json.dumps([ids]))
    beside = ["--adapter", adapter] if adapter else []
    engine(binary, "logits", "--model", model, *beside, "--ids", folder / "ids.json", "--out", folder / "logits.safetensors")
    return load_file(folder / "logits.safetensors")["row_0"]


def llama_logits(model, lora, ids):
    llama = Llama(str(model), lora_path=lora and str(lora), n_ctx=0, n_batch=64, logits_all=True, verbose=False)
    llama.eval(ids)
    scores = numpy.array(llama.scores[:len(ids)])
    llama.close()
    return scores


def check(binary, case, folder):
    base, adapter = FIXTURES / case / "base", FIXTURES / case / "adapter_after_8_steps"
    ids = load_file(FIXTURES / case / "expected.safetensors")["input_ids"][0][:12].tolist()
    expected, untuned = engine_logits(binary, base, adapter, ids, folder), engine_logits(binary, base, None, ids, folder)
    merge = lambda form, out, *more: engine(binary, "merge", "--model", base, "--format", form, "--out", folder / out, *more)
    merge("gguf_f16", "merged.gguf", "--adapter", adapter)
    merge("gguf_f16", "base.gguf")
    merge("gguf_lora", "adapter.gguf", "--adapter", adapter)
    scale = numpy.abs(expected).max()
    effect = numpy.abs(untuned - expected).max() / scale
    passed = True
    for form, model, lora in (("merged", "merged.gguf", None), ("beside its base", "base.gguf", folder / "adapter.gguf")):
        gap = numpy.abs(llama_logits(folder / model, lora, ids) - expected).max() / scale
        good = gap <= TOLERANCE < effect / 10
        print(f"{case}, adapter {form}: differs by {gap:.1e} of the largest logit (allowed {TOLERANCE:.0e}); it moves logits by "
              f"{effect:.1e}{'' if good else '  FAILED'}", flush=True)
        passed &= good
    return passed


def quantised(binary, runtime, folder):
    model = runtime / "models/smollm2-135m-instruct.gguf"
    for form in ("gguf_f16", "gguf_q8_0"):
        engine(binary, "merge", "--model", model, "--format", form, "--out", folder / f"{form}.gguf")
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = Q8_0
    theirs = folder / "theirs.gguf"
    failed = llama_cpp.llama_model_quantize(str(folder / "gguf_f16.gguf").encode(), str(theirs).encode(), ctypes.byref(settings))
    assert not failed
    ids = [1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47]
    gap = numpy.abs(engine_logits(binary, folder / "gguf_q8_0.gguf", None, ids, folder) - engine_logits(binary, theirs, None, ids, folder)).max()
    print(f"SmolLM2 in Q8_0: differs by {gap:.1e} from what llama.cpp's quantiser makes of it", flush=True)
    return bool(gap == 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", required=True, type=pathlib.Path)
    parser.add_argument("--runtime", required=True, type=pathlib.Path)
    options = parser.parse_args()
    results = []
    for case in CASES:
        with tempfile.TemporaryDirectory(prefix="finetuned-llama-") as folder:
            results.append(check(options.bin, case, pathlib.Path(folder)))
    with tempfile.TemporaryDirectory(prefix="finetuned-llama-") as folder:
        results.append(quantised(options.bin, options.runtime, pathlib.Path(folder)))
    print(f"{sum(results)} passed, {len(results) - sum(results)} failed")
    sys.exit(0 if all(results) else 1)


main()
