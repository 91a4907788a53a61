"""Which directories are models, what is said of those that are not, and what a loaded one can do."""

import logging
import os
import subprocess
import sys

import ctranslate2
import pytest
from checkpoints import converted, hub_cache, linked, replaced, weights_file
from fake_hub import FakeHub
from hearing import samples_of, transcribed, wav
from speech_common.environment import SettingError
from speech_common.errors import ModelUnavailable, UnknownModel
from speech_common.models import loading
from speech_common.models.catalogue import Catalogue
from speech_common.models.faults import ModelError, PassingFault
from whisper_server.model import Model
from whisper_server.settings import Settings


def settings(models_dir, **variables):
    return Settings.from_environment(
        {"WHISPER_MODELS_DIR": str(models_dir), "WHISPER_MODEL_NAME": "default", **variables}
    )


@pytest.fixture
def models_dir(tmp_path):
    directory = tmp_path / "models"
    directory.mkdir()
    return directory


@pytest.fixture
def catalogue(models_dir):
    return Catalogue(settings(models_dir))


@pytest.fixture(autouse=True)
def _log_level(caplog):
    caplog.set_level(logging.INFO, "speech.models")


def listed(catalogue):
    return [entry.name for entry in catalogue.entries()]


def rejections(caplog):
    return [record.getMessage() for record in caplog.records if "event=model_rejected" in record.message]


def test_directory_is_listed_when_it_is_dropped_in_and_gone_when_it_is_removed(
    catalogue, models_dir, tiny_model
):
    assert listed(catalogue) == ["default"]
    linked(tiny_model, models_dir / "tuned")
    assert listed(catalogue) == ["default", "tuned"]
    assert catalogue.resolve("tuned") == "tuned"
    (models_dir / "tuned").rename(models_dir.parent / "elsewhere")
    assert listed(catalogue) == ["default"]
    with pytest.raises(UnknownModel, match=r"'tuned' does not exist here. Models: default, whisper-1\."):
        catalogue.resolve("tuned")


@pytest.mark.parametrize("quantization", ["int8", "int16", "float16"])
def test_weights_of_any_type_are_loaded_and_transcribe(catalogue, models_dir, tiny_model, quantization):
    converted(tiny_model, models_dir / "tuned", quantization)
    model = loading.load(catalogue.find("tuned"), settings(models_dir), Model)
    assert model.model.compute_type == "int8_float32"
    text = transcribed(model, wav(samples_of("austen-0880")), language="en", beam_size=1).text
    assert "young man" in text


def test_facts_are_known_without_loading(catalogue, models_dir, tiny_model, base_model):
    linked(tiny_model, models_dir / "english")
    linked(base_model, models_dir / "many")
    assert catalogue.find("english").facts.languages == ("en",)
    many = catalogue.find("many").facts
    assert many.is_multilingual
    assert len(many.languages) == 99
    assert "yue" not in many.languages  # it came with large-v3


@pytest.mark.parametrize(
    ("config", "times_words", "tells_languages"),
    [
        ({"alignment_heads": [[3, 1], [5, 7]], "lang_ids": [50259]}, True, True),
        ({"alignment_heads": [[6, 1]], "lang_ids": [50259]}, False, True),
        ({"alignment_heads": [], "lang_ids": []}, False, False),
        ({"alignment_heads": [[1]], "lang_ids": [True]}, False, False),
        ({"alignment_heads": None, "lang_ids": "en"}, False, False),
        ({"suppress_ids": []}, False, False),
    ],
)
def test_config_tells_whether_words_can_be_timed_and_languages_told(
    models_dir, base_model, config, times_words, tells_languages
):
    replaced(linked(base_model, models_dir / "many"), "config.json", config)
    facts = Catalogue(settings(models_dir)).find("many").facts
    assert (facts.times_words, facts.tells_languages) == (times_words, tells_languages)
    assert facts.is_multilingual


def test_english_model_needs_no_languages_in_its_config(catalogue, models_dir, tiny_model):
    replaced(linked(tiny_model, models_dir / "english"), "config.json", {"alignment_heads": [[0, 0]]})
    facts = catalogue.find("english").facts
    assert (facts.times_words, facts.tells_languages) == (True, True)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("model.bin", b"", "model.bin ends in the middle"),
        ("model.bin", b"not weights", "model.bin is not in CTranslate2 format. ct2-transformers-converter"),
        ("model.bin", weights_file()[:-1], "model.bin ends in the middle"),
        ("model.bin", weights_file()[:60] + bytes(len(weights_file()) - 60), "model.bin ends in the middle"),
        ("model.bin", weights_file(kind="TransformerSpec"), "a 'TransformerSpec', not a Whisper model"),
        ("config.json", "{", "config.json is no JSON; copy it again"),
        ("config.json", "[" * 100_000, "config.json is no JSON; copy it again"),
        ("config.json", "[]", "config.json is no JSON object"),
        ("config.json", {}, "config.json is not the one that goes with model.bin"),
        ("config.json", {"d_model": 384, "suppress_tokens": []}, "it has none of alignment_heads, lang_ids"),
        ("tokenizer.json", '{"version": "1.0", "mod', "tokenizer.json is no JSON object to its end"),
        ("preprocessor_config.json", {"feature_size": 128}, "feature_size is 128, but model.bin takes 80"),
        ("preprocessor_config.json", {"feature_size": "80"}, "feature_size is '80', but model.bin takes 80"),
        ("preprocessor_config.json", {"sampling_rate": 8000}, "sampling_rate is 8000, and only 16000"),
        (
            "model.bin",
            weights_file(mels=128),
            "preprocessor_config.json missing: this model takes 128 mel bins",
        ),
    ],
)
def test_file_that_does_not_fit_keeps_the_model_out_of_the_list_and_is_named(
    models_dir, tiny_model, name, content, told
):
    catalogue = Catalogue(settings(models_dir))
    replaced(linked(tiny_model, models_dir / "tuned"), name, content)
    assert listed(catalogue) == ["default"]
    with pytest.raises(ModelUnavailable) as caught:
        catalogue.resolve("tuned")
    assert caught.value.reason.startswith("tuned: ")
    assert told in caught.value.reason


def test_fault_is_logged_once_until_it_changes(catalogue, models_dir, tiny_model, caplog):
    tuned = replaced(linked(tiny_model, models_dir / "tuned"), "config.json", "{")
    assert listed(catalogue) == listed(catalogue) == ["default"]
    assert rejections(caplog) == [
        "event=model_rejected name='tuned' cause='config.json is no JSON; copy it again'"
    ]
    replaced(tuned, "config.json", "[]")
    assert listed(catalogue) == ["default"]
    assert len(rejections(caplog)) == 2


@pytest.mark.parametrize("name", ["model.bin", "config.json", "tokenizer.json", "vocabulary.txt"])
def test_file_that_is_missing_is_named(catalogue, models_dir, tiny_model, name):
    (linked(tiny_model, models_dir / "tuned") / name).unlink()
    with pytest.raises(ModelUnavailable, match=f"{name} missing: no Whisper model"):
        catalogue.resolve("tuned")


def test_model_of_128_mel_bins_is_listed_with_its_preprocessor(catalogue, models_dir, tiny_model):
    tuned = replaced(linked(tiny_model, models_dir / "tuned"), "model.bin", weights_file(mels=128))
    replaced(tuned, "preprocessor_config.json", {"feature_size": 128})
    assert listed(catalogue) == ["default", "tuned"]


def test_model_that_is_being_copied_is_listed_when_it_is_whole_and_told_of_once(
    catalogue, models_dir, tiny_model, caplog
):
    tuned = linked(tiny_model, models_dir / "tuned")
    (tuned / "model.bin").unlink()
    weights = weights_file()
    with (tuned / "model.bin").open("wb") as copy:
        for first in range(0, len(weights), 1 + len(weights) // 5):
            assert listed(catalogue) == ["default"]
            copy.write(weights[first : first + 1 + len(weights) // 5])
            copy.flush()
    assert listed(catalogue) == ["default", "tuned"]
    assert len(rejections(caplog)) == 1


def test_two_names_of_one_directory_are_one_model(catalogue, models_dir, tiny_model):
    linked(tiny_model, models_dir / "tuned")
    (models_dir / "a-link").symlink_to(models_dir / "tuned")
    entries = {entry.name: entry.aliases for entry in catalogue.entries()}
    assert entries == {"default": ("whisper-1",), "tuned": ("a-link",)}
    assert catalogue.resolve("a-link") == "tuned"


def test_default_models_own_directory_is_not_listed_twice(catalogue, models_dir, tiny_model):
    linked(tiny_model, models_dir / "tuned")
    catalogue.found_default(models_dir / "tuned")
    assert [(entry.name, entry.aliases) for entry in catalogue.entries()] == [
        ("default", ("whisper-1", "tuned"))
    ]
    assert catalogue.resolve("tuned") == "default"


def test_whisper_1_always_means_the_default(models_dir, tiny_model, caplog):
    linked(tiny_model, models_dir / "whisper-1")
    catalogue = Catalogue(settings(models_dir))
    assert listed(catalogue) == ["default"]
    assert catalogue.resolve("whisper-1") == catalogue.resolve(None) == "default"
    assert "this name is an alias of default; rename the directory" in rejections(caplog)[0]


def test_default_that_is_no_model_is_told_with_its_directory(catalogue, models_dir):
    with pytest.raises(
        ModelError, match=rf"^{models_dir}: model\.bin, config\.json, tokenizer\.json, vocabulary\.json or"
    ):
        catalogue.found_default(models_dir)


def test_directory_cannot_take_the_defaults_name(catalogue, models_dir, tiny_model, caplog):
    linked(tiny_model, models_dir / "default")
    catalogue.found_default(tiny_model)
    assert listed(catalogue) == ["default"]
    assert "this is the default model's name" in rejections(caplog)[0]


def test_alias_means_its_model_and_is_listed_with_it(models_dir, tiny_model):
    linked(tiny_model, models_dir / "tuned")
    catalogue = Catalogue(settings(models_dir, WHISPER_ALIASES="fast=tuned, later=not-yet-there"))
    assert catalogue.resolve("fast") == "tuned"
    assert {entry.name: entry.aliases for entry in catalogue.entries()}["tuned"] == ("fast",)
    with pytest.raises(UnknownModel):
        catalogue.resolve("later")


@pytest.mark.parametrize(
    "value",
    ["fast", "fast=", "=tuned", "a b=tuned", "whisper-1=tuned", "default=tuned", "a=b,a=c", "a=b,b=c"],
)
def test_alias_that_cannot_be_is_named(tmp_path, value):
    with pytest.raises(SettingError, match="WHISPER_ALIASES="):
        settings(tmp_path, WHISPER_ALIASES=value)


def test_models_directory_must_be_there(tmp_path):
    with pytest.raises(SettingError, match=r"WHISPER_MODELS_DIR=.*an existing directory"):
        settings(tmp_path / "missing")


@pytest.mark.parametrize("name", ["a b", "a%2Fb", "ä", "a\nb", "-a", "a" * 101, "a?b"])
def test_name_that_cannot_travel_is_refused(catalogue, models_dir, tiny_model, caplog, name):
    linked(tiny_model, models_dir / name)
    assert listed(catalogue) == ["default"]
    assert [line.count("\n") for line in rejections(caplog)] == [0]
    assert "rename it" in rejections(caplog)[0]


def test_what_is_no_directory_is_passed_over_in_silence(catalogue, models_dir, tiny_model, caplog):
    (models_dir / "README").write_text("models")
    linked(tiny_model, models_dir / ".being-copied")
    assert listed(catalogue) == ["default"]
    assert rejections(caplog) == []


def test_link_to_nothing_is_told(catalogue, models_dir):
    (models_dir / "tuned").symlink_to(models_dir / "nothing")
    with pytest.raises(ModelUnavailable, match=r"tuned: model\.bin, config\.json, tokenizer.json"):
        catalogue.resolve("tuned")


def test_directory_of_models_that_goes_leaves_the_default(catalogue, models_dir, caplog):
    models_dir.rename(models_dir.parent / "elsewhere")
    assert listed(catalogue) == ["default"]
    assert listed(catalogue) == ["default"]
    assert len(rejections(caplog)) == 1


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_what_may_not_be_read_is_told_with_the_remedy(models_dir, tiny_model):
    tuned = replaced(linked(tiny_model, models_dir / "tuned"), "model.bin", weights_file())
    (tuned / "model.bin").chmod(0)
    for parent in (models_dir, *models_dir.parents):
        if parent.stat().st_uid == os.getuid() and parent != parent.parent:
            parent.chmod(parent.stat().st_mode | 0o055)
    code = (
        "import os, sys; from speech_common.models.checkpoint import *; from pathlib import Path\n"
        "directory = Path(sys.argv[1]); os.setuid(65534)\n"
        "try: inspect('tuned', directory, stamp_of(directory))\n"
        "except ModelError as exc: print(exc)"
    )
    told = subprocess.run([sys.executable, "-c", code, tuned], capture_output=True, text=True, timeout=60)
    assert told.stdout == "model.bin: user 0, as whom this server runs, may not read it (chmod -R a+rX)\n", (
        told.stderr
    )


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        (
            "tokenizer.json",
            lambda text: text.replace("<|notimestamps|>", "<|nothing|>"),
            "lacks the token <|notimestamps|>",
        ),
        (
            "tokenizer.json",
            lambda text: text.replace("<|nocaptions|>", "<|nothing|>"),
            "lacks the token <|nospeech|>",
        ),
        (
            "vocabulary.txt",
            lambda text: "<|added|>\n" + text.replace("<|30.00|>\n", ""),
            "tokenizer.json belongs to another model: <|endoftext|> is 50256",
        ),
        (
            "vocabulary.txt",
            lambda text: text.replace("<|30.00|>\n", ""),
            "the vocabulary has 51863 tokens, and model.bin 51864",
        ),
    ],
)
def test_tokens_that_do_not_fit_are_found_at_the_load(models_dir, tiny_model, name, change, told):
    catalogue = Catalogue(settings(models_dir))
    tuned = linked(tiny_model, models_dir / "tuned")
    replaced(tuned, name, change((tiny_model / name).read_bytes().decode()))
    with pytest.raises(ModelError) as caught:
        loading.load(catalogue.find("tuned"), settings(models_dir), Model)
    assert told in str(caught.value)


def test_other_models_tokenizer_is_found_at_the_load(catalogue, models_dir, tiny_model, base_model):
    tuned = linked(tiny_model, models_dir / "tuned")
    replaced(tuned, "tokenizer.json", (base_model / "tokenizer.json").read_bytes())
    with pytest.raises(
        ModelError, match=r"belongs to another model: <\|endoftext\|> is 50257 there and 50256"
    ):
        loading.load(catalogue.find("tuned"), settings(models_dir), Model)


def test_weights_that_only_look_right_are_found_at_the_load_and_leave_the_list(
    catalogue, models_dir, tiny_model
):
    replaced(linked(tiny_model, models_dir / "tuned"), "model.bin", weights_file())
    checkpoint = catalogue.find("tuned")
    with pytest.raises(ModelError, match=r"model\.bin cannot be loaded on cpu as int8") as caught:
        loading.load(checkpoint, settings(models_dir), Model)
    catalogue.reject(checkpoint, caught.value)
    assert listed(catalogue) == ["default"]
    replaced(models_dir / "tuned", "model.bin", (tiny_model / "model.bin").read_bytes())
    assert listed(catalogue) == ["default", "tuned"]


@pytest.mark.parametrize("compute_type", ["float16", "int16", "bfloat16", "int8_float16"])
def test_compute_type_that_the_cpu_cannot_do_is_told_with_those_it_can(
    catalogue, models_dir, tiny_model, compute_type
):
    linked(tiny_model, models_dir / "tuned")
    with pytest.raises(ModelError) as caught:
        loading.load(catalogue.find("tuned"), settings(models_dir, WHISPER_COMPUTE_TYPE=compute_type), Model)
    assert (
        f"WHISPER_COMPUTE_TYPE={compute_type}: this cpu cannot do it. Accepted here: auto, default, float32, int8"
        in str(caught.value)
    )


def test_request_may_name_what_is_in_the_hubs_cache(catalogue, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    hub_cache(tmp_path, tiny_model, "small")
    assert catalogue.resolve("small") == catalogue.resolve("Systran/faster-whisper-small") == "small"
    assert catalogue.find("small").facts.languages == ("en",)
    assert listed(catalogue) == ["default"]
    assert catalogue.to_fetch("small") is None


@pytest.mark.parametrize(
    "name", ["owner/name", "../../etc", "a/b/c", "", "\0", "owner/\0", "x" * 10_000, "tiny.de"]
)
def test_request_may_name_no_other_of_the_hub(catalogue, tmp_path, monkeypatch, name):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(UnknownModel):
        catalogue.resolve(name)
    assert catalogue.to_fetch(name) is None


@pytest.mark.parametrize(
    ("name", "own", "repository"),
    [
        ("medium", "medium", "Systran/faster-whisper-medium"),
        ("large", "large-v3", "Systran/faster-whisper-large-v3"),
        ("Systran/faster-whisper-small", "small", "Systran/faster-whisper-small"),
        ("ours", "owner/name", "owner/name"),
        ("fast", "tiny", "Systran/faster-whisper-tiny"),
    ],
)
def test_sizes_and_what_an_alias_names_may_be_fetched(tmp_path, monkeypatch, name, own, repository):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    variables = {"WHISPER_MODEL_NAME": "default", "WHISPER_ALIASES": "ours=owner/name,fast=tiny"}
    catalogue = Catalogue(Settings.from_environment(variables))
    assert catalogue.resolve(name) == own
    assert catalogue.to_fetch(own) == repository
    assert listed(catalogue) == ["default"]
    with pytest.raises(UnknownModel):
        Catalogue(Settings.from_environment({**variables, "WHISPER_DOWNLOADS": "none"})).resolve(name)


def test_directory_goes_before_the_hub_even_when_it_is_broken(catalogue, models_dir, tiny_model):
    linked(tiny_model, models_dir / "small")
    replaced(linked(tiny_model, models_dir / "medium"), "config.json", "{")
    assert catalogue.to_fetch("small") is catalogue.to_fetch("medium") is None
    with pytest.raises(ModelUnavailable, match=r"config\.json is no JSON"):
        catalogue.resolve("medium")


def test_default_is_found_among_the_models_before_the_hub(models_dir, tiny_model):
    linked(tiny_model, models_dir / "base")
    found = loading.locate_default(settings(models_dir, WHISPER_MODEL="base"))
    assert found == models_dir / "base"


def test_default_in_the_hubs_cache_is_used_without_the_hub(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    lies = hub_cache(tmp_path, tiny_model, "tiny")
    assert loading.locate_default(Settings.from_environment({"WHISPER_MODEL": "tiny"})) == lies


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("/no/such/directory", "there is no such directory"),
        ("~no-such-user/model", "there is no such directory"),
        ("no-such-size", "neither a directory nor a known size"),
    ],
)
def test_default_that_cannot_be_is_told(model, told):
    with pytest.raises(ModelError, match=f"^WHISPER_MODEL={model}: {told}"):
        loading.locate_default(Settings.from_environment({"WHISPER_MODEL": model}))


def outcome_of(code, home, **environment):
    """Run code in a process of its own, for the hub's client reads its environment once; return what it prints."""
    imports = "from speech_common.models import hub, loading; from whisper_server.settings import Settings\n"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", imports + code],
        env={**clean, "HF_HOME": str(home), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize("environment", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}])
def test_default_that_is_not_here_fails_at_once_without_the_internet(tmp_path, environment):
    code = (
        "try: loading.locate_default(Settings.from_environment({'WHISPER_MODEL': 'large-v3'}))\n"
        "except loading.ModelError as exc: print(exc)"
    )
    told = outcome_of(code, tmp_path, **environment)
    assert "WHISPER_MODEL=large-v3: Systran/faster-whisper-large-v3 could not be downloaded" in told
    assert f"It is not in the cache at {tmp_path / 'hub'}. Put it there" in told


def test_model_is_downloaded_into_the_cache_or_told_what_the_hub_lacks(tmp_path):
    """Whole, or with a file missing, or not at all."""
    whole, part = tmp_path / "whole", tmp_path / "part"
    for directory, names in (
        (whole, "model.bin config.json tokenizer.json vocabulary.txt README.md"),
        (part, "README.md"),
    ):
        directory.mkdir()
        for name in names.split():
            (directory / name).write_text(name)
    code = (
        "import os\n"
        "for size in ('small', 'base', 'tiny'):\n"
        "    repository = hub.repository_of(size)\n"
        "    try: print(hub.download(repository) == hub.cached(repository), sorted(os.listdir(hub.cached(repository))))\n"
        "    except loading.ModelError as exc: print(exc)"
    )
    with FakeHub(small=whole, base=part) as hub:
        told = outcome_of(code, tmp_path / "home", HF_ENDPOINT=hub.url).splitlines()
    assert told[0] == "True ['config.json', 'model.bin', 'tokenizer.json', 'vocabulary.txt']"
    assert told[1].startswith(
        "Systran/faster-whisper-base on the hub has no model.bin, config.json, tokenizer.json"
    )
    assert told[2].startswith("the hub has no model Systran/faster-whisper-tiny. It is not in the cache at")


class Gpu:
    """The library where there is a GPU, as far as a load asks. `broken` is what it raises at the first real work."""

    def __init__(self, monkeypatch, types=("float16", "float32"), broken=None):
        self.loaded = []
        self.broken = broken
        monkeypatch.setattr(ctranslate2, "get_cuda_device_count", lambda: 1)
        possible = ctranslate2.get_supported_compute_types
        monkeypatch.setattr(
            ctranslate2,
            "get_supported_compute_types",
            lambda device: set(types) if device == "cuda" else possible(device),
        )
        gpu = self

        class OnGpu(Model):
            def __init__(self, *args, device, compute_type, **kwargs):
                gpu.loaded.append((device, compute_type))
                self.claims = device
                super().__init__(*args, device="cpu", compute_type="int8", **kwargs)

            def try_out(self):
                if gpu.broken is not None:
                    raise gpu.broken

        self.kind = OnGpu


NO_CUBLAS = RuntimeError("Library libcublas.so.12 is not found or cannot be loaded")


def load_tiny(models_dir, tiny_model, kind=Model, **variables):
    linked(tiny_model, models_dir / "tuned")
    made = settings(models_dir, **variables)
    return loading.load(Catalogue(made).find("tuned"), made, kind)


@pytest.mark.parametrize(
    ("types", "computed"), [(("float16", "float32"), "float16"), (("float32", "int8"), "default")]
)
def test_gpu_that_works_is_used_with_what_it_can_do(models_dir, tiny_model, monkeypatch, types, computed):
    gpu = Gpu(monkeypatch, types)
    load_tiny(models_dir, tiny_model, gpu.kind)
    assert gpu.loaded == [("cuda", computed)]


def test_gpu_that_does_not_work_is_told_of_and_the_cpu_taken(models_dir, tiny_model, monkeypatch, caplog):
    gpu = Gpu(monkeypatch, broken=NO_CUBLAS)
    load_tiny(models_dir, tiny_model, gpu.kind)
    assert gpu.loaded == [("cuda", "float16"), ("cpu", "int8")]
    (told,) = [record.getMessage() for record in caplog.records if "event=cuda_not_used" in record.message]
    assert "libcublas.so.12" in told


def test_gpu_that_was_asked_for_and_does_not_work_fails_the_load_and_not_the_files(
    models_dir, tiny_model, monkeypatch
):
    gpu = Gpu(monkeypatch, broken=NO_CUBLAS)
    with pytest.raises(PassingFault, match=r"WHISPER_DEVICE=cuda: Library libcublas\.so\.12"):
        load_tiny(models_dir, tiny_model, gpu.kind, WHISPER_DEVICE="cuda")


def test_want_of_memory_is_not_the_files_fault(models_dir, tiny_model):
    def bad_alloc(*_, **__):
        raise MemoryError("std::bad_alloc")

    with pytest.raises(PassingFault, match="bad_alloc"):
        load_tiny(models_dir, tiny_model, bad_alloc)


def test_languages_of_a_loaded_model_are_its_own(models_dir, tiny_model):
    assert load_tiny(models_dir, tiny_model).supported_languages == ["en"]
