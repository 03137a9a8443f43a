"""Time and peak memory of one diagnostic of one subject, in a process of its own.

    python benchmarks/diagnostics.py NAME [SUBJECT] [--exposed SUBJECT] [--never-exposed SUBJECT] [--refuse STEPS]

``--refuse`` first teaches the subject to refuse hazard requests for some steps, so that a model from elsewhere has a
guardrail to search; the time of that is not counted, its memory is. Prints a JSON record; those of the docs are in
benchmarks/records.
"""

import argparse
import json
import time

import torch

from immunobench.diagnostics.base import References, all_diagnostics, run
from immunobench.domains import Domain, Example, load_domain
from immunobench.subjects import Subject, load_subject
from immunobench.training import Recipe, train


def teach_refusals(subject: Subject, domain: Domain, steps: int) -> None:
    """Fine-tune in place on refused hazard requests and unrelated chats."""
    refused = [Example(prompt, r.refusal) for r in domain.requests_t for prompt in r.train_prompts]
    for _ in train(subject, [*refused, *domain.unrelated], Recipe(1e-4, steps, 16), seed=0):
        pass


def main() -> None:
    """Run the diagnostic and print what it took."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=list(all_diagnostics()))
    parser.add_argument("subject", nargs="?", default="smollm2-135m")
    parser.add_argument("--exposed")
    parser.add_argument("--never-exposed")
    parser.add_argument("--refuse", type=int, default=0)
    options = parser.parse_args()
    subject, domain = load_subject(options.subject), load_domain()
    if options.refuse:
        teach_refusals(subject, domain, options.refuse)
    references = References(
        load_subject(options.exposed) if options.exposed else None,
        load_subject(options.never_exposed) if options.never_exposed else None,
    )
    started = time.process_time()
    found = run(options.name, subject, references, domain)
    record = {
        "diagnostic": found.name,
        "subject": found.subject,
        "threads": torch.get_num_threads(),
        "seconds": found.seconds,
        "cpu_seconds": round(time.process_time() - started, 1),
        "peak_memory_mib": found.peak_memory_mib,
        "summary": found.finding.summary,
    }
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
