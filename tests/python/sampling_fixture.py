"""Writes tests/fixtures/sampling.json: next-token probabilities by transformers' logits processors, in their order.

Run with the packages of requirements-interop.txt: `.runtime/python-interop/bin/python tests/python/sampling_fixture.py`.
"""
import json
import pathlib

import torch
from transformers import LogitsProcessorList, MinPLogitsWarper, RepetitionPenaltyLogitsProcessor, TemperatureLogitsWarper
from transformers import TopKLogitsWarper, TopPLogitsWarper

OUT = pathlib.Path(__file__).resolve().parents[1] / "fixtures/sampling.json"
VOCABULARY = 300
SETTINGS = [
    {"temperature": 1.0},
    {"temperature": 0.3},
    {"temperature": 1.7},
    {"repetition_penalty": 1.4},
    {"repetition_penalty": 0.7, "temperature": 0.8},
    {"top_k": 1},
    {"top_k": 7},
    {"top_k": 299, "temperature": 2.0},
    {"top_p": 0.05},
    {"top_p": 0.6},
    {"top_p": 0.97, "temperature": 1.5},
    {"min_p": 0.02},
    {"min_p": 0.3, "temperature": 1.3},
    {"top_k": 40, "top_p": 0.8},
    {"top_k": 12, "top_p": 0.9, "min_p": 0.1, "temperature": 1.2, "repetition_penalty": 1.15},
]


def processors(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, repetition_penalty=1.0):
    """As `GenerationMixin._get_logits_processor` puts them together."""
    chosen = LogitsProcessorList()
    if repetition_penalty != 1.0:
        chosen.append(RepetitionPenaltyLogitsProcessor(penalty=repetition_penalty))
    if temperature != 1.0:
        chosen.append(TemperatureLogitsWarper(temperature))
    if top_k:
        chosen.append(TopKLogitsWarper(top_k=top_k))
    if top_p < 1.0:
        chosen.append(TopPLogitsWarper(top_p=top_p))
    if min_p > 0.0:
        chosen.append(MinPLogitsWarper(min_p=min_p))
    return chosen


def main():
    torch.manual_seed(0)
    cases = []
    for settings in SETTINGS:
        logits = torch.round(torch.randn(1, VOCABULARY) * 2.5 * 1e4) / 1e4
        seen = torch.randint(0, VOCABULARY, (1, 30))
        probabilities = processors(**settings)(seen, logits.clone()).softmax(-1)[0]
        kept = {int(i): round(float(probabilities[i]), 9) for i in probabilities.nonzero().flatten()}
        cases.append({"settings": settings, "logits": [round(x, 4) for x in logits[0].tolist()], "seen": seen[0].tolist(),
                      "probabilities": kept})
    OUT.write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")


main()
