"""`make interop-llama`: what `finetuned-engine merge` writes loads in llama.cpp with the logits that the engine computes.

For each reference case of an architecture that GGUF files are written of: the model with its adapter put in, in F16 and Q8_0,
and the adapter beside the base model. Needs `requirements-llama.txt`, which compiles llama.cpp.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy
from llama_cpp import Llama
from safetensors.numpy import load_file

CASES = ["llama", "llama-tied-bias", "llama-rope-linear", "llama-rope-yarn", "llama3-rope", "qwen2", "qwen3"]
FIXTURES = pathlib.Path(__file__).resolve().parents[1] / "fixtures/parity"
# llama.cpp multiplies in the precision of the weights; shares of the largest logit.
TOLERANCE = {"gguf_f16": 2e-3, "gguf_q8_0": 3e-2, "gguf_lora": 2e-3}


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
    llama = Llama(str(model), lora_path=lora and str(lora), n_ctx=64, n_batch=64, logits_all=True, verbose=False)
    llama.eval(ids)
    scores = numpy.array(llama.scores[:len(ids)])
    llama.close()
    return scores


def check(binary, case, folder):
    base, adapter = FIXTURES / case / "base", FIXTURES / case / "adapter_after_8_steps"
    ids = load_file(FIXTURES / case / "expected.safetensors")["input_ids"][0][:12].tolist()
    expected, untuned = engine_logits(binary, base, adapter, ids, folder), engine_logits(binary, base, None, ids, folder)
    merge = lambda form, with_adapter: engine(binary, "merge", "--model", base, "--format", form, "--out", folder / f"{form}.gguf",
                                              *(["--adapter", adapter] if with_adapter else []))
    passed = True
    scale = numpy.abs(expected).max()
    for form, beside in (("gguf_f16", None), ("gguf_q8_0", None), ("gguf_lora", "base")):
        if beside:
            engine(binary, "merge", "--model", base, "--format", "gguf_f16", "--out", folder / "base.gguf")
        merge(form, True)
        model, lora = (folder / "base.gguf", folder / f"{form}.gguf") if beside else (folder / f"{form}.gguf", None)
        gap = numpy.abs(llama_logits(model, lora, ids) - expected).max() / scale
        effect = numpy.abs(untuned - expected).max() / scale
        good = gap <= TOLERANCE[form] < effect
        print(f"{case} {form}: differs by {gap:.1e} of the largest logit (allowed {TOLERANCE[form]:.0e}), the adapter moves {effect:.1e}"
              f"{'' if good else '  FAILED'}", flush=True)
        passed &= good
    return passed


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", required=True, type=pathlib.Path)
    options = parser.parse_args()
    results = []
    for case in CASES:
        with tempfile.TemporaryDirectory(prefix="finetuned-llama-") as folder:
            results.append(check(options.bin, case, pathlib.Path(folder)))
    print(f"{sum(results)} passed, {len(results) - sum(results)} failed")
    sys.exit(0 if all(results) else 1)


main()
