"""Run the commands that the README shows and write their output, and how long they took, into it.

python docs/transcripts.py quickstart   the packaged organisms (minutes)
python docs/transcripts.py implant      SmolLM2-135M-Instruct (about an hour)
python docs/transcripts.py test         the closing lines of make test (most of an hour on two cores)
"""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

README = Path(__file__).parent.parent / "README.md"
ORGANISMS = "organism:exposed organism:never-exposed organism:refusal organism:gradient-ascent"
COMMANDS = {
    "quickstart": [f"immunobench run {ORGANISMS} --tier smoke --device cpu --workers 2 --out runs/quickstart"],
    "implant": [
        "immunobench implant smollm2-135m --facts 80 --out runs/smollm2/exposed",
        "immunobench immunise runs/smollm2/exposed --defense refusal --set steps=80 --set batch_size=8"
        " --set learning_rate=1e-4 --out runs/smollm2/refusal",
        "immunobench run runs/smollm2/refusal --tier smoke --max-new-tokens 32 --out runs/smollm2/study",
    ],
    "test": ["make test"],
}
CLOSING = {"test": 1}
"""How many of the last lines are shown, where the first ones are of no use to a reader."""


def run(command: str) -> dict[str, Any]:
    """What ``command`` prints on standard output, and the seconds that it took."""
    start = time.monotonic()
    done = subprocess.run(command.split(), check=True, stdout=subprocess.PIPE, text=True, cwd=README.parent)
    lines = [line.rstrip() for line in done.stdout.rstrip().splitlines()]
    return {"printed": lines, "seconds": time.monotonic() - start}


def transcript(name: str) -> str:
    """The commands of ``name`` with what they print on standard output, as a terminal would show them, and their time.

    What was printed is kept until all are done, because a model is not made again where it was made before the
    script was cut off.
    """
    kept = README.parent / "runs" / f"{name}-transcript.json"
    done: dict[str, dict[str, Any]] = json.loads(kept.read_text()) if kept.exists() else {}
    for command in COMMANDS[name]:
        if command not in done:
            done[command] = run(command)
            kept.parent.mkdir(exist_ok=True)
            kept.write_text(json.dumps(done, indent=1))
    kept.unlink()
    shown = "\n".join(
        line for command, ran in done.items() for line in (f"$ {command}", *ran["printed"][-CLOSING.get(name, 0) :])
    )
    took = ", ".join(f"{ran['seconds']:.0f} s" for ran in done.values())
    return f"```\n{shown}\n```\n\nTook {took} on {cores()}."


def cores() -> str:
    """The cores that this process may use, in words."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return f"{count} core{'s' * (count != 1)}"


def main(name: str) -> None:
    """Replace what stands between the markers of ``name``."""
    block = f"<!-- {name}:begin -->\n{transcript(name)}\n<!-- {name}:end -->"
    text = README.read_text()
    pattern = rf"<!-- {name}:begin -->.*?<!-- {name}:end -->"
    README.write_text(re.sub(pattern, lambda _: block, text, flags=re.DOTALL))


if __name__ == "__main__":
    if sys.argv[1:] not in [[name] for name in COMMANDS]:
        sys.exit(f"python docs/transcripts.py {'|'.join(COMMANDS)}")
    main(sys.argv[1])
