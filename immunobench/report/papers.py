"""BibTeX of the benchmark, and of the papers that adversaries come from."""

import re
from collections.abc import Iterator

from immunobench import __version__

BENCHMARK = f"""\
@software{{immunobench,
  title = {{immunobench: Is a language model's hazardous capability gone, or only hidden?}},
  author = {{{{The immunobench contributors}}}},
  year = {{2026}},
  version = {{{__version__}}},
  license = {{Apache-2.0}},
  url = {{https://huggingface.co/datasets/immunobench/immunobench}}
}}
"""
TITLES = {
    "1909.03368": "Designing and Interpreting Probes with Control Tasks",
    "2307.15043": "Universal and Transferable Adversarial Attacks on Aligned Language Models",
    "2402.05162": "Assessing the Brittleness of Safety Alignment via Pruning and Low-Rank Modifications",
    "2402.09063": (
        "Soft Prompt Threats: Attacking Safety Alignment and Unlearning in Open-Source LLMs through the Embedding Space"
    ),
    "2402.16382": "Immunization against Harmful Fine-tuning Attacks",
    "2404.01099": "What's in Your ``Safe'' Data?: Identifying Benign Data that Breaks Safety",
    "2404.02151": "Jailbreaking Leading Safety-Aligned LLMs with Simple Adaptive Attacks",
    "2406.11717": "Refusal in Language Models Is Mediated by a Single Direction",
    "2407.00106": "UnUnlearning: Unlearning is not sufficient for content regulation in advanced generative AI",
    "2408.00761": "Tamper-Resistant Safeguards for Open-Weight LLMs",
    "2409.01586": (
        "Booster: Tackling Harmful Fine-tuning for Large Language Models via Attenuating Harmful Perturbation"
    ),
    "2409.18025": "An Adversarial Perspective on Machine Unlearning for AI Safety",
    "2410.08827": "Do Unlearning Methods Remove Information from Language Model Weights?",
    "2410.16454": "Catastrophic Failure of LLM Unlearning via Quantization",
    "2508.06601": (
        "Deep Ignorance: Filtering Pretraining Data Builds Tamper-Resistant Safeguards into Open-Weight LLMs"
    ),
}
"""By arXiv id. A paper that is not here is cited by its id alone."""
AUTHORS = {"2508.06601": "O'Brien and others"}
"""Where the source of an adversary names a paper by something else than its authors."""


def papers(source: str) -> Iterator[tuple[str, str]]:
    """(Key, entry) of each 'Author & Author 2024, arXiv 2410.08827' or 'Author 2024, Its Title' in a source."""
    for part in source.split(";"):
        found = re.search(r"([^,:]*?)\s*(\d{4}), (?:arXiv (\d{4}\.\d{4,5})|([A-Z].*))", part)
        if found is None:
            continue
        named, year, eprint, title = found.groups()
        named = named.strip()
        authors = AUTHORS.get(eprint, named.replace(" et al.", " and others").replace(" & ", " and "))
        if eprint is None:
            yield f"{named} {year}", _entry(f"{named.split()[0].lower()}-{year}", title.strip(), authors, year)
        else:
            yield eprint, _entry(f"arxiv-{eprint}", TITLES.get(eprint), authors, year, eprint)


def _entry(key: str, title: str | None, authors: str, year: str, eprint: str | None = None) -> str:
    # The second braces keep the capitals of a title, which styles would lower.
    fields = [
        f"title = {{{{{title}}}}}" if title else "note = {cited by its arXiv id}",
        f"author = {{{authors}}}",
        f"year = {{{year}}}",
        *([f"eprint = {{{eprint}}}", "archiveprefix = {arXiv}"] if eprint else []),
    ]
    return f"@misc{{{key},\n" + ",\n".join(f"  {field}" for field in fields) + "\n}\n"
