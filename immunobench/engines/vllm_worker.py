"""What runs inside vLLM's own process, beside its worker: new weights in place, and an end with the study's."""

import os
import shutil
import signal
import threading
import time
from typing import Any

LOOK = 1.0
"""Seconds between two looks at whether the study's process is there."""


class WeightUpdate:
    """Mixed into vLLM's worker by name."""

    model_runner: Any

    def leave_with(self, process: int, folder: str) -> None:
        """End this process when ``process`` has gone, and remove ``folder``.

        Killed with SIGKILL it cannot end us itself, and the memory that we hold would be missing to the next study.
        """

        def watch() -> None:
            while _lives(process):
                time.sleep(LOOK)
            shutil.rmtree(folder, ignore_errors=True)
            os.kill(os.getpid(), signal.SIGKILL)

        threading.Thread(target=watch, name="immunobench-leave", daemon=True).start()

    def update_weights_from(self, folder: str) -> None:
        """Load the checkpoint in ``folder`` into the running model.

        On CPU vLLM packs each matrix for its kernel. It packs again what a checkpoint names, but an output matrix
        that is tied to the input embeddings is named by none, and would keep the old values: so every matrix whose
        weight was kept beside its packed form is packed again.
        """
        self.model_runner.reload_weights(weights_path=folder)
        for layer in self.model_runner.get_model().modules():
            if hasattr(layer, "cpu_linear") and layer.weight.numel():
                layer.quant_method.process_weights_after_loading(layer)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
