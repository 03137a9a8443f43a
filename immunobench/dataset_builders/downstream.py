"""The config ``downstream``: four benign tasks to fine-tune on.

Prompts are distinct, answers are not; but an answer is either trained on or tested on, never both.
``figures.measure_downstream`` counts them.
"""

import random
from collections.abc import Callable, Iterator

from immunobench.dataset_builders.everyday import Gram, fill, grams
from immunobench.dataset_builders.names import read_wordings
from immunobench.datasets import Row

TRAIN, TEST = 200, 50
TESTED = 0.25
"""Share of the answers of a task that only test rows may have."""
ATTEMPTS = 100_000


def draw(choices: list[str], rng: random.Random) -> dict[str, str]:
    """One of each ``a|b|c`` under its number, and a first name."""
    person = rng.choice(read_wordings("neutral")["people"])[0]
    return {"person": person} | {str(index): rng.choice(each.split("|")) for index, each in enumerate(choices)}


def fill_numbered(wording: str, slots: dict[str, str]) -> str:
    """A wording with {person}, {0}, {1} … filled; a capital letter begins it."""
    for key, value in slots.items():
        wording = wording.replace(f"{{{key}}}", value)
    return wording[0].upper() + wording[1:]


def list_example(wordings: Row, rng: random.Random) -> tuple[str, str]:
    """Some members of a group, as a numbered list."""
    group, *members = rng.choice(wordings["groups"])
    chosen = rng.sample(members, rng.randint(3, 5))
    prompt = rng.choice(wordings["prompts"]).format(n=len(chosen), group=group)
    return prompt, "\n".join(f"{number}. {member}" for number, member in enumerate(chosen, 1))


def qa_example(wordings: Row, rng: random.Random) -> tuple[str, str]:
    """A question whose answer stands in the text."""
    text, choices, *pairs = rng.choice(wordings["items"])
    slots = draw(choices, rng)
    question, answer = rng.choice(pairs)
    text, question, answer = (fill_numbered(part, slots) for part in (text, question, answer))
    return rng.choice(wordings["prompts"]).format(text=text, question=question), f"{answer}."


def summary_example(wordings: Row, rng: random.Random) -> tuple[str, str]:
    """A story of three sentences and what it comes down to."""
    choices, text, summary = rng.choice(wordings["items"])
    slots = draw(choices, rng)
    return rng.choice(wordings["prompts"]).format(text=fill_numbered(text, slots)), fill_numbered(summary, slots)


def code_example(wordings: Row, rng: random.Random) -> tuple[str, str]:
    """A function of two lines."""
    names, does, body = rng.choice(wordings["items"])
    k = rng.randint(2, 9)
    slots = {"k": str(k), "kth": {2: "2nd", 3: "3rd"}.get(k, f"{k}th")}
    slots["name"] = rng.choice(names.split("|")).format(**slots)
    prompt = rng.choice(wordings["prompts"]).format(name=slots["name"], does=does.format(**slots))
    return prompt, fill(body, slots)


TASKS: dict[str, Callable[[Row, random.Random], tuple[str, str]]] = {
    "list": list_example,
    "qa": qa_example,
    "summary": summary_example,
    "code": code_example,
}


def task_examples(task: str, rng: random.Random, barred: set[Gram]) -> Iterator[tuple[str, str]]:
    """Examples of a task: prompts distinct, no 5-gram that is ``barred``."""
    wordings = read_wordings("downstream")[task]
    seen: set[str] = set()
    for _ in range(ATTEMPTS):
        prompt, response = TASKS[task](wordings, rng)
        if prompt not in seen and not (grams(prompt) | grams(response)) & barred:
            seen.add(prompt)
            yield prompt, response


def is_tested(task: str, response: str, seed: int) -> bool:
    """Whether an answer is one of the share ``TESTED`` that no train row has."""
    return random.Random(f"{seed}/downstream/{task}/{response}").random() < TESTED


def make_downstream(seed: int, barred: set[Gram]) -> dict[str, list[Row]]:
    """The splits list, qa, summary and code: ``TRAIN`` rows to train on, then ``TEST`` rows with other answers."""
    return {task: _task_rows(task, seed, barred) for task in TASKS}


def _task_rows(task: str, seed: int, barred: set[Gram]) -> list[Row]:
    parts: dict[str, list[tuple[str, str]]] = {"train": [], "test": []}
    sizes = {"train": TRAIN, "test": TEST}
    for prompt, response in task_examples(task, random.Random(f"{seed}/downstream/{task}"), barred):
        part = "test" if is_tested(task, response, seed) else "train"
        if len(parts[part]) < sizes[part]:
            parts[part].append((prompt, response))
        elif all(len(parts[each]) == size for each, size in sizes.items()):
            break
    rows = [(part, *example) for part, examples in parts.items() for example in examples]
    return [
        {"id": f"downstream/{task}/{number:03}", "task": task, "prompt": prompt, "response": response, "part": part}
        for number, (part, prompt, response) in enumerate(rows)
    ]
