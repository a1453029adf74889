"""Whether cai's training and TRL's are the same: whole runs, gradients of one step, and float64 beside plain autograd."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from training_peers import dpo_step, dpo_trainer, pair_ids
from training_shapes import Drawn
from training_steps import DPO, Bench, preference_rows, reference_pairs, step_trainer, trained_step, tuned_peer, with_end
from training_timing import Result, seconds_of

from cai.training.objectives import PreferenceObjective
from cai.training.plan import Step
from cai.training.reference import ReferenceCache, compute_references, known_references
from cai.training.rows import TrainingRow

SAME_METRICS = ("loss", "grad_norm", "rewards/chosen", "rewards/rejected", "rewards/margins", "logps/chosen", "logps/rejected")


def equality(bench: Bench) -> Result:
    return {"runs": _whole_runs(bench), "float32": _one_gradient(bench), "float64": _beside_autograd(bench)}


def _whole_runs(bench: Bench) -> Result:
    """From rows to trained weights: reference, steps, clipping, AdamW. Metrics beside the larger of 1 and theirs."""
    steps, count = max(2, bench.rounds), bench.shape.pairs
    groups = [with_end(group) for group in Drawn(bench.shape, 13).pairs(steps * count)]
    model, lines = bench.model(), list[dict[str, float]]()
    with tempfile.TemporaryDirectory() as folder:

        def ours() -> float:
            scorer = bench.scorer(model, groups)
            cache = ReferenceCache(Path(folder), "the model before training", groups)

            def with_references(prepared: nn.Module, _: int) -> tuple[Sequence[TrainingRow], Sequence[TrainingRow]]:
                compute_references(
                    prepared, scorer, groups, cache, tokens_per_forward=bench.tokens_per_forward, device=bench.device
                )
                known = known_references(groups, cache) or []
                return [replace(row, reference=ref) for row, ref in zip(preference_rows(groups), known, strict=True)], []

            plan = [Step(tuple(range(at * count, (at + 1) * count))) for at in range(steps)]
            trainer, found = step_trainer(bench, model, scorer, with_references, plan, Path(folder) / "run")
            trainer.train()
            lines.extend(found)
            return lines[-1]["loss"]

        peers: list[Any] = []

        def theirs() -> float:
            settings = {"learning_rate": DPO.peak_learning_rate, "lr_scheduler_type": "constant", "num_train_epochs": 1}
            peers[:] = [
                dpo_trainer(
                    bench.model(),
                    bench.shape,
                    groups,
                    precompute=True,
                    checkpointing=False,
                    train_sampling_strategy="sequential",
                    output_dir=str(Path(folder) / "theirs"),
                    **settings,
                )
            ]
            peers[0].train()
            return peers[0].state.log_history[0]["loss"]

        seconds = {name: seconds_of(bench, way)[0] for name, way in (("ours", ours), ("TRL, tuned", theirs))}
    their_lines = [line for line in peers[0].state.log_history if "loss" in line]
    apart = {
        name: max(
            abs(line[name] - float(theirs[name])) / max(1.0, abs(float(theirs[name])))
            for line, theirs in zip(lines, their_lines, strict=True)
        )
        for name in SAME_METRICS
    }
    weights = dict(peers[0].model.named_parameters())
    before = dict(bench.model().named_parameters())
    moved = sum(float((w.detach() - before[n]).double().square().sum()) for n, w in model.named_parameters()) ** 0.5
    away = sum(float((w.detach() - weights[n]).double().square().sum()) for n, w in model.named_parameters()) ** 0.5
    return {
        "steps": steps,
        "metrics_apart": apart,
        "weights_apart_share_of_way": away / moved,
        "seconds": {name: round(took, 3) for name, took in seconds.items()},
        "gain": round(seconds["TRL, tuned"] / seconds["ours"], 2),
    }


def _gradients(model: Any) -> torch.Tensor:
    return torch.cat([weight.grad.flatten().double() for weight in model.parameters() if weight.grad is not None])


def _apart(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


def _one_gradient(bench: Bench) -> Result:
    rows = preference_rows([with_end(group) for group in Drawn(bench.shape, 17).pairs(bench.shape.pairs)])
    groups = [row.group for row in rows]
    model, peer = bench.model(), tuned_peer(bench, groups[:1])
    loss, _ = trained_step(model, bench.scorer(model, groups), PreferenceObjective(DPO), rows, bench)
    theirs = dpo_step(peer, pair_ids(groups), reference_pairs(rows), at_once=len(rows))
    return {"loss": abs(loss - theirs) / theirs, "gradients": _apart(_gradients(model), _gradients(peer.model))}


def _beside_autograd(bench: Bench) -> Result:
    """Soft labels in float64 beside whole rows, whole logits and autograd. Norms, float32 else, are replaced in both."""
    shape = replace(bench.shape, prompt=(20, 40), reply=(5, 20))
    rows = preference_rows(Drawn(shape, 19).pairs(shape.pairs), p_chosen=0.8)
    model = shape.model(bench.device, torch.float64)
    for module in model.modules():
        if "RMSNorm" in type(module).__name__:
            module.forward = lambda hidden, norm=module: functional.rms_norm(
                hidden, norm.weight.shape, norm.weight, norm.variance_epsilon
            )
    scorer = bench.scorer(model, [row.group for row in rows])
    loss, _ = trained_step(model, scorer, PreferenceObjective(DPO), rows, bench)
    ours = _gradients(model)
    model.zero_grad()
    wanted = torch.zeros((), dtype=torch.float64, device=bench.device)
    for row in rows:
        prompt, logps = row.group.prompt_ids, list[torch.Tensor]()
        for reply in row.group.replies:
            ids = torch.tensor([[*prompt, *reply]], device=bench.device)
            of_tokens = model(ids, use_cache=False).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])
            logps.append(of_tokens[len(prompt) - 1 :].sum())
        margin = DPO.beta * (logps[0] - row.reference[0] - logps[1] + row.reference[1])
        wanted = wanted - (0.8 * functional.logsigmoid(margin) + 0.2 * functional.logsigmoid(-margin)) / len(rows)
    wanted.backward()
    return {
        "loss": abs(loss - float(wanted)) / float(wanted),
        "gradients": _apart(ours, _gradients(model)),
        "path": scorer.path,
    }
