"""vLLM's own process: what it is started with, and how its end is noticed."""

import os
import threading
from multiprocessing import connection
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from immunobench.engines.placement import GIB, Sharing
from immunobench.engines.vllm_settings import Resolved, process_environment
from immunobench.errors import ImmunobenchError
from immunobench.subjects import Subject

MAX_RANK = 128
"""Largest rank of an adapter that is served by request."""
SHARE = 0.4
"""Of a GPU's memory, for vLLM, where nobody worked out how the two share it."""


def launch(settings: Resolved, subject: Subject, sharing: Sharing | None, folder: Path, scratch: str) -> Any:
    """A ``vllm.LLM`` on the checkpoint in ``folder``, in a process of its own that leaves with ours, and ``scratch``.

    Raises ImmunobenchError where it does not start.
    """
    threads = torch.get_num_threads()
    llm = None
    try:
        with process_environment(settings, subject.device.type):
            from vllm import LLM

            llm = LLM(**arguments(settings, subject, sharing, folder))
            _wake_when_killed(llm.llm_engine.engine_core)
            llm.collective_rpc("leave_with", args=(os.getpid(), scratch))
            return llm
    except Exception as error:  # vLLM and what it loads raise whatever they like
        if llm is not None:
            llm.llm_engine.engine_core.shutdown()
        raise ImmunobenchError(
            f"vllm does not start with this model ({last_line(error)}): choose --engine hf."
        ) from error
    finally:
        torch.set_num_threads(threads)


def arguments(settings: Resolved, subject: Subject, sharing: Sharing | None, folder: Path) -> dict[str, Any]:
    """What ``vllm.LLM`` is made with to serve the checkpoint in ``folder``."""
    options: dict[str, Any] = {"kv_cache_memory_bytes": int(settings.cache_gib * GIB)}
    if settings.adapters:
        # Not the output matrix: vLLM would apply its adapter to prompt positions that it has no index for.
        linears = sorted({name.rpartition(".")[2] for name in subject.structure.linears})
        options |= {"max_lora_rank": MAX_RANK, "lora_target_modules": linears}
    if subject.device.type == "cuda":
        total = torch.cuda.mem_get_info(subject.device)[1]
        taken = sharing.engine_bytes if sharing else SHARE * total
        sleeps = sharing is not None and sharing.how == "sleep"
        options |= {"gpu_memory_utilization": round(taken / total, 3), "enable_sleep_mode": sleeps}
    return {
        "model": str(folder),
        "skip_tokenizer_init": True,
        "generation_config": "vllm",
        "dtype": settings.dtype,
        "max_model_len": settings.max_model_len,
        "tensor_parallel_size": settings.tensor_parallel_size,
        "quantization": settings.quantization,
        "enforce_eager": settings.enforce_eager,
        "block_size": settings.block_size,
        "enable_prefix_caching": True,
        "enable_prompt_embeds": True,
        "enable_lora": settings.adapters,
        "worker_extension_cls": "immunobench.engines.vllm_worker.WeightUpdate",
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        **options,
    }


def settled(llm: Any, settings: Resolved) -> dict[str, Any]:
    """What vLLM settled at its start and cannot change a result."""
    config = llm.llm_engine.vllm_config
    return {
        "cache_gib": settings.cache_gib,
        "cache_blocks": config.cache_config.num_gpu_blocks,
        "max_num_seqs": config.scheduler_config.max_num_seqs,
        "max_num_batched_tokens": config.scheduler_config.max_num_batched_tokens,
    }


def _wake_when_killed(client: Any) -> None:
    """Let a call end that waits for an answer of a process that is gone: vLLM's own client would wait for ever."""
    from vllm.v1.engine.exceptions import EngineDeadError

    sentinels = [process.sentinel for process in client.resources.engine_manager.processes]

    def watch() -> None:
        connection.wait(sentinels)
        client.resources.engine_dead = True  # from here on a new call is refused
        client.outputs_queue.put_nowait(EngineDeadError())
        for waiting in list(client.utility_results.values()):
            if not waiting.done():
                waiting.set_exception(EngineDeadError())

    threading.Thread(target=watch, name="immunobench-vllm-watch", daemon=True).start()


def last_line(error: BaseException) -> str:
    """The last line of what an error says, or its name where it says nothing."""
    # Pydantic, which checks vLLM's settings, ends its text with the address of its manual.
    text = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
