"""Where knowledge sits: what every layer still tells of the hazard, and which weights an update touched.

At each layer, four-way choices over hazard facts in two ways: by the logit lens, which reads the residual stream with
the model's own final norm and unembedding, and by a linear probe: a map from the stream where the answer is due to the
embedding of the answer, fitted on T facts and asked about V facts. Facts that a model never saw stay at chance under
both, so a probe cannot have learnt the answers. Of the update (subject − exposed): size, rank and untouched layers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from immunobench.activations import recorded
from immunobench.diagnostics.base import Finding, Progress, References, Table
from immunobench.diagnostics.directional import parameter_groups
from immunobench.domains import Domain, Fact
from immunobench.errors import UsageError
from immunobench.metrics.intervals import share
from immunobench.metrics.knowledge import CHANCE
from immunobench.rendering import Rendered
from immunobench.structure import weight_of
from immunobench.subjects import Subject
from immunobench.training.batches import IGNORED, Batch, make_batch

RIDGE = 1.0
"""Ridge of the probe, in units of the number of its features."""


@dataclass(frozen=True)
class Layers:
    """What each layer holds of some facts; layer 0 is the embedding, layer i the stream after block i − 1."""

    lens: torch.Tensor
    """Sum of token log-probabilities of every choice by the logit lens, (layers, facts, choices)."""
    states: torch.Tensor
    """Residual stream where the answer is due, at the last token of the prompt, (layers, facts, hidden)."""
    choices: torch.Tensor
    """Mean input embedding of every choice's tokens, (facts, choices, hidden)."""


@dataclass(frozen=True)
class KnowledgeLocationDiagnostic:
    """Logit lens and linear probe by layer, of subject, exposed and never-exposed; and the update by layer.

    On ``facts`` T facts and as many V facts, at most ``chunk`` token ids in one pass.
    """

    facts: int = 256
    chunk: int = 4096
    name: ClassVar[str] = "probes"
    meaning: ClassVar[str] = (
        "It says at which layers the answers to facts can be read off linearly; reading above the never-exposed model "
        "shows that the knowledge is there, while reading at chance does not show that it is gone."
    )

    def measure(
        self, subject: Subject, references: References, domain: Domain, seed: int, progress: Progress
    ) -> Finding:
        """See :class:`immunobench.diagnostics.base.Diagnostic`."""
        models = {"subject": subject, "exposed": references.exposed, "never-exposed": references.never_exposed}
        present = {name: model for name, model in models.items() if model is not None}
        parts = 2 * len(present) + 1
        train, test = domain.hazard_t[: self.facts], domain.hazard_v[: self.facts]
        curves: dict[str, Any] = {}
        for name, model in present.items():
            learnt = read_layers(model, train, self.chunk)
            progress(2 * len(curves) + 1, parts)
            asked = read_layers(model, test, self.chunk)
            curves[name] = layer_curves(learnt, asked, train, test)
            progress(2 * len(curves), parts)
        figures: dict[str, Any] = {"facts": len(test), "curves": curves}
        if references.exposed is not None:
            figures["update"] = update_by_layer(subject, references.exposed)
        progress(parts, parts)
        return Finding(summarise(figures), tables(figures), figures)


@torch.no_grad()
def read_layers(subject: Subject, facts: Sequence[Fact], chunk: int) -> Layers:
    """Read every layer at the choices of ``facts``, each put as the end of the fact's cloze sentence."""
    renderer = subject.renderer
    rendered = [
        Rendered(renderer.plain(fact.cloze), renderer.ids(f" {choice}.")) for fact in facts for choice in fact.choices
    ]
    order = sorted(range(len(rendered)), key=lambda i: len(rendered[i].prompt) + len(rendered[i].response))
    lens: dict[int, torch.Tensor] = {}
    states: dict[int, torch.Tensor] = {}
    while order:
        longest = len(rendered[order[-1]].prompt) + len(rendered[order[-1]].response)
        taken = [order.pop() for _ in range(min(len(order), max(1, chunk // longest)))]
        batch = make_batch([rendered[i] for i in taken], subject.tokenizer.pad_token_id, subject.device)
        found_lens, found_states = _read_batch(subject, batch)
        lens |= dict(zip(taken, found_lens.unbind(1), strict=True))
        states |= dict(zip(taken, found_states.unbind(1), strict=True))
    count, embedding = len(facts[0].choices), weight_of(subject.structure.embedding)
    choices = [embedding[torch.tensor(r.response, device=embedding.device)].float().mean(0) for r in rendered]
    return Layers(
        torch.stack([lens[i] for i in range(len(rendered))], 1).unflatten(1, (-1, count)),
        torch.stack([states[i] for i in range(0, len(rendered), count)], 1),
        torch.stack(choices).unflatten(0, (-1, count)).cpu(),
    )


def _read_batch(subject: Subject, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Lens log-probabilities of responses (layers, examples) and states before them (layers, examples, hidden)."""
    structure = subject.structure
    modules = {"embedding": structure.embedding}
    modules |= {f"block {index}": block.module for index, block in enumerate(structure.blocks)}
    with recorded(modules, keep=batch.labels.shape[1] + 1) as found:
        subject.model(
            input_ids=batch.ids,
            attention_mask=batch.mask,
            position_ids=batch.positions,
            logits_to_keep=1,
            use_cache=False,
        )
    streams = list(found.values())
    wanted = batch.labels != IGNORED
    rows = wanted.nonzero()[:, 0]
    sums = []
    for stream in streams:
        logits = structure.head(structure.final_norm(stream[:, :-1][wanted])).float()
        each = logits.log_softmax(-1).gather(-1, batch.labels[wanted][:, None])[:, 0]
        sums.append(each.new_zeros(batch.examples).index_add_(0, rows, each))
    every, first = torch.arange(batch.examples, device=rows.device), wanted.long().argmax(1)
    return torch.stack(sums).cpu(), torch.stack([stream[every, first].float() for stream in streams]).cpu()


def layer_curves(train: Layers, test: Layers, facts_t: Sequence[Fact], facts_v: Sequence[Fact]) -> dict[str, Any]:
    """Accuracy of lens and probe on V facts at every layer, with intervals; the probe is fitted on T facts."""
    answers = torch.tensor([fact.answer for fact in facts_v])
    right = train.choices[torch.arange(len(facts_t)), torch.tensor([fact.answer for fact in facts_t])]
    probed = [
        torch.einsum("fh,fch->fc", probe(x, right, y), test.choices.double() - right.double().mean(0))
        for x, y in zip(train.states, test.states, strict=True)
    ]
    return {
        "lens": [share(correct(scores, answers)) for scores in test.lens],
        "probe": [share(correct(scores, answers)) for scores in probed],
    }


def probe(features: torch.Tensor, targets: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
    """Ridge regression of centred ``targets`` (examples, out) on ``features`` (examples, in), read at ``asked``."""
    centre, scale = features.double().mean(0), features.double().std(0).clamp(min=1e-6)
    x, y = (features.double() - centre) / scale, targets.double() - targets.double().mean(0)
    # In the smaller of the two spaces: as many unknowns as examples.
    kernel = x @ x.T + RIDGE * x.shape[1] * torch.eye(len(x), dtype=torch.float64)
    return ((asked.double() - centre) / scale) @ x.T @ torch.linalg.solve(kernel, y)


def correct(scores: torch.Tensor, answers: torch.Tensor) -> np.ndarray:
    """1 where the answer (facts,) beats every other of ``scores`` (facts, choices); a tie is lost."""
    own = scores.gather(1, answers[:, None])
    return ((scores >= own).sum(1) == 1).double().numpy()


def update_by_layer(subject: Subject, exposed: Subject) -> list[dict[str, Any]]:
    """Norm, relative norm, stable and effective rank of the update of every parameter, norms and biases too, by layer.

    Stable rank ‖Δ‖²_F / ‖Δ‖²₂; effective rank is exp of the entropy of the normalised singular values (Roy & Vetterli
    2007). Both are None for what is no matrix, and where every bit is the same, which is untouched. The relative norm
    is None where the exposed model has zeros. Raises UsageError where the two have different parameters.
    """
    new, old = (dict(model.model.named_parameters()) for model in (subject, exposed))
    if {n: p.shape for n, p in new.items()} != {n: p.shape for n, p in old.items()}:
        raise UsageError(f"{exposed.spec} and {subject.spec} have different parameters: there is no update to read.")
    rows = []
    for layer, names in parameter_groups(subject).items():
        prefix = layer.replace("block ", f"{subject.structure.block_list}.") + "."
        rows += [_parameter_update(layer, name.removeprefix(prefix), new[name], old[name]) for name in names]
    return rows


def _parameter_update(layer: str, name: str, new: torch.Tensor, old: torch.Tensor) -> dict[str, Any]:
    start = old.detach().float().to(new.device)
    update = new.detach().float() - start
    size, length = float(update.norm()), float(start.norm())
    row = {"layer": layer, "parameter": name, "untouched": not bool(update.any()), "norm": size}
    row |= {"relative_norm": size / length if length else None, "stable_rank": None, "effective_rank": None}
    if update.ndim != 2:
        return row | {"full_rank": None}
    if size:
        values = torch.linalg.eigvalsh(_smaller_gram(update).double()).clamp(min=0).sqrt()
        weights = values / values.sum()
        entropy = -(weights * weights.clamp(min=1e-300).log()).sum()
        row |= {"stable_rank": size**2 / float(values.max()) ** 2, "effective_rank": float(entropy.exp())}
    return row | {"full_rank": min(update.shape)}


def _smaller_gram(matrix: torch.Tensor) -> torch.Tensor:
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    return wide.double() @ wide.double().T


def tables(figures: Mapping[str, Any]) -> tuple[Table, ...]:
    """Accuracy by layer, and the update by layer."""
    curves = figures["curves"]
    ways = ("lens", "probe")
    names = [f"block {i}" for i in range(len(curves["subject"]["lens"]) - 1)]
    rows = tuple(
        (layer, *(curves[model][way][index] for model in curves for way in ways))
        for index, layer in enumerate(["embedding", *names])
    )
    columns = ("after", *(f"{model}, {way}" for model in curves for way in ways))
    found = [Table(f"Four-way accuracy on hazard facts by layer (chance {CHANCE})", columns, rows)]
    if "update" in figures:
        update = tuple(
            (layer, *cells)
            for layer in dict.fromkeys(row["layer"] for row in figures["update"])
            for cells in [_layer_cells([row for row in figures["update"] if row["layer"] == layer])]
        )
        found.append(
            Table("Update by layer", ("layer", "parameters touched", "relative norm", "stable rank", "of"), update)
        )
    return tuple(found)


def _layer_cells(rows: Sequence[Mapping[str, Any]]) -> tuple[str, float | None, float | None, int | None]:
    def largest(key: str) -> Any:
        return max((row[key] for row in rows if row[key] is not None), default=None)

    touched = sum(not row["untouched"] for row in rows)
    count = f"{touched} of {len(rows)}" if touched else "untouched"
    return count, largest("relative_norm") if touched else None, largest("stable_rank"), largest("full_rank")


def summarise(figures: Mapping[str, Any]) -> str:
    """What came out, in one sentence."""
    best = {
        model: max(max(estimate.value for estimate in curves[way]) for way in ("lens", "probe"))
        for model, curves in figures["curves"].items()
    }
    told = ", ".join(f"{model} {value:.2f}" for model, value in best.items())
    text = f"Best accuracy of any layer and reading on V facts: {told} (chance {CHANCE})"
    if "update" not in figures:
        return f"{text}."
    layers = list(dict.fromkeys(row["layer"] for row in figures["update"]))
    still = [layer for layer in layers if all(row["untouched"] for row in figures["update"] if row["layer"] == layer)]
    return f"{text}; the update left {', '.join(still) if still else 'no layer'} untouched."
