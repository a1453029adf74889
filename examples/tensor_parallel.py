"""Generate with one model split over several GPUs, layer by layer: each process holds a part of every weight matrix.

    torchrun --nproc-per-node 4 examples/tensor_parallel.py MODEL PROMPTS.jsonl > replies.jsonl

`MODEL` is a folder or a hub id; `PROMPTS.jsonl` has a `prompt` in every line. Every process runs the same requests in the same
order and draws the same tokens (noise is keyed by the request), so only the first one writes. On machines without GPUs the
processes compute on the CPU and talk over gloo: slow, but the same.

For whole runs (`cai run`), let a server split the model and give its address, or run one process per GPU on shards of the rows.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
from pathlib import Path

import torch.distributed

from cai.engines.base import Generation, GenerationRequest, SamplingParams
from cai.engines.local import LocalEngine
from cai.models.loading import load_model
from cai.models.spec import ModelSpec
from constitution.messages import user


def main(model: ModelSpec, prompts: Path) -> None:
    """Answer every prompt, and print the answers as JSON lines in the order of the prompts."""
    first = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(level=logging.INFO if first else logging.WARNING, format="%(message)s")
    engine = LocalEngine(load_model(model))
    params = SamplingParams(temperature=0.8, max_tokens=64)
    lines = prompts.read_text(encoding="utf-8").splitlines()
    requests = [
        GenerationRequest((user(json.loads(line)["prompt"]),), params, f"0/{number}/0/draft/0")
        for number, line in enumerate(lines)
    ]
    answers = dict(engine.generate(requests))
    for number in range(len(requests)) if first else ():
        answer = answers[number]
        text = answer.text if isinstance(answer, Generation) else None
        print(json.dumps({"row": number, "reply": text, "failure": None if text is not None else str(answer)}))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("prompts", type=Path)
    parser.add_argument("--dtype", default="auto")
    given = parser.parse_args()
    main(ModelSpec(name=given.model, dtype=given.dtype, placement="tensor_parallel"), given.prompts)
