"""Which public names of transformers concern text, and which of them are here: the table of docs/upstream-names.md.

`python tests/upstream_names.py` writes the table anew, and cutaway/compat/not_built.py, by which names that are not
here can be imported; test_compat.py says when that is due.
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
from collections import defaultdict
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "upstream-names.md"
TABLE = Path(__file__).parent.parent / "cutaway" / "compat" / "not_built.py"
# of what is not about texts, what scripts for texts import all the same
NO_TEXT = re.compile(r"Auto\w+|\w*Mixin|Base\w+|BatchFeature|\w+Pipeline|is_\w+")
# what is in a name that is about pictures, sounds, series of numbers, or actions
OTHER = re.compile(
    r"Image|Video|Audio|Vision|Speech|Depth|Segmentation|Detection|Mask(s|Generation)|Keypoint|Whisper|CTC|RNNT|TDT|"
    r"Spectrogram|Waveform|Backbone|Visual|Pixel|Decision|TimeSeries|MaskedLMImage|TextRecognition|TableRec|Matting|"
    r"Pose|Normal|Pointmap|XVector|Multimodal|Retrieval|Document|Feature(?!ExtractionPipeline)|Processor$|Processing|"
    r"PilBackend|TorchvisionBackend|IMAGE|VIDEO|AUDIO|SPEECH|VISION|DEPTH|SEGMENT|DETECTION|MASK_GEN|KEYPOINT|_CTC_|"
    r"_RNNT_|_TDT_|SPECTRO|WAVEFORM|BACKBONE|VISUAL|PIXEL|DECISION|TIME_SERIES|RECOGNITION|MATTING|POSE_|NORMAL|POINTMAP|"
    r"XVECTOR|MULTIMODAL|RETRIEVAL|DOCUMENT|AnyToAny|AlternatingCodebooks|VideosKwargs|ImagesKwargs|AudioKwargs"
)
TEXT_TASKS = (
    "CAUSAL_LM", "MASKED_LM", "SEQ_TO_SEQ_CAUSAL_LM", "SEQUENCE_CLASSIFICATION", "QUESTION_ANSWERING",
    "TOKEN_CLASSIFICATION", "MULTIPLE_CHOICE", "NEXT_SENTENCE_PREDICTION", "TEXT_ENCODING",
)  # fmt: skip
OTHER_TASKS = (
    "IMAGE_TEXT_TO_TEXT", "MULTIMODAL_LM", "SPEECH_SEQ_2_SEQ", "IMAGE_CLASSIFICATION", "AUDIO_CLASSIFICATION",
    "VISUAL_QUESTION_ANSWERING", "DOCUMENT_QUESTION_ANSWERING", "TEXT_TO_SPECTROGRAM", "TEXT_TO_WAVEFORM", "CTC",
    "TIME_SERIES_PREDICTION", "RETRIEVAL", "DECISION", "BACKBONE", "ZERO_SHOT_IMAGE_CLASSIFICATION",
)  # fmt: skip
# a name that is not here -> what there is, or why not; the first pattern that fits
REASONS = (
    (r"(Conversion|Rename|Merge|Split|Chunk|Concatenate|Permute|Weight|VisionFuse|VisionUnfuse)\w*",
     "a step of upstream's loader; here a family's table of weights says it"),
    (r"PreTrainedTokenizer\w*|PythonBackend|SentencePieceBackend|MistralCommonBackend|\w*SLOW_TO_FAST\w*|"
     r"convert_slow_tokenizer", "every tokenizer here is a fast one of the tokenizers library"),
    (r"(Dynamic|Static|Sliding|Cache)\w*Layer\w*|CacheLayerMixin|StaticSlidingWindowLayer",
     "one `Cache` holds all layers; `cache.layers[i]` has their keys and values"),
    (r"\w+(Layer|RMSNorm|Attention|MLP|Block)|AttentionInterface|AttentionMaskInterface|ROPE_INIT_FUNCTIONS|RopeParameters|"
     r"dynamic_rope_update|kernelize|model_addition_debugger_context",
     "a part of upstream's own models; here there is one engine"),
    (r"\w*PipelineDataFormat", "read the file with csv, json or datasets, and give the pipeline a list"),
    (r"ContinuousMixin|TextDiffusionStreamer", "not built"),
    (r"TableQuestionAnsweringPipeline|\w*TABLE_QUESTION\w*|AutoModelForTableQuestionAnswering",
     "no family here reads tables"),
    (r"BasicTokenizer|WordpieceTokenizer|\w+TokenizerLegacy",
     "what they do is in the pipeline of the fast tokenizer: tokenizer.backend_tokenizer"),
    (r"ProcessorMixin|PROCESSOR_MAPPING|FEATURE_EXTRACTOR_MAPPING", "for pictures and sounds"),
    (r"MBart50Tokenizer", "AutoTokenizer reads its tokenizer.json"),
    (r"\w*ForCausalLM", "not built: the decoder of an encoder-decoder is not a model of its own here"),
    (r"\w*EncoderModel|\w*DecoderModel\w*|EncoderDecoder\w*", "not built"),
    (r"DummyObject|TextKwargs|is_\w+", "of upstream's own making"),
)  # fmt: skip

# what upstream does beside names, and why it is not done here
NEVER = (
    ("`training_args.bin` in a checkpoint",
     "it is a pickle, which runs code when it is read; the settings are in JSON"),
    ("a resume from a checkpoint whose weights were split or renamed after it was written",
     "a checkpoint is whole or it is not resumed; `from_pretrained` reads such a folder"),
    ("another `per_device_train_batch_size` in a resume",
     "the batches would be others, so it would be another training"),
    ("`accelerator_config` of several processes, `ddp_static_graph`, DeepSpeed",
     "the trainer runs on torch alone: `torchrun`, and `fsdp`"),
    ("`CheckpointManager`, `JITCheckpointCallback`",
     "`enable_jit_checkpoint=True` does what they do"),
    ("callbacks for Kubeflow, SwanLab and other services",
     "`report_to` knows TensorBoard, MLflow, wandb and trackio; write a `TrainerCallback` for another"),
    ("the processors of sound models (`Bark...`, `Dia...`)",
     "no task of texts; write a `LogitsProcessor`"),
    ("`torch.compile(model, fullgraph=True)`, and tests that are skipped without it",
     "the engine's kernels and its recorded decode step take its place"),
    ("a text of which `attention_mask` hides every token",
     "it has no result; upstream gives numbers that mean nothing"),
    ("`guidance_scale` of an encoder-decoder",
     "upstream runs BART's encoder on each new token, and the decoder on its start alone; T5 is an error there"),
    ("`optimizer.pt` and `scheduler.pt` in a checkpoint",
     "they are pickles; `training.safetensors` and `training.json` hold what they do"),
    ("more key and value heads than heads, as in `MistralConfig(num_attention_heads=4)`",
     "such a model can be made upstream, and computes nothing; give `num_key_value_heads` too"),
    ("labels of hidden words in DeBERTa",
     "its attention hides such a word from itself as well"),
    ("cutting the list of layers of ALBERT",
     "its layers share one block; set `num_hidden_layers`"),
    ("`GenerationMixin` among the direct bases, `_initialize_weights`, `_get_tied_weight_keys`, "
     "`_prepare_special_tokens`, `utils.output_capturing`, `conversion_mapping`",
     "the inside of upstream's own models"),
    ("`nn.Dropout` modules inside a model, whose `p` a script sets",
     "there are none: rates are the config's, as in `from_pretrained(name, hidden_dropout_prob=0.0)`"),
    ("the last columns by `logits_to_keep=1` of texts that are padded on the right",
     "each text's last real token is given; upstream gives the logits of padding"),
    ("an evaluation that leaves out rows (`dataloader_drop_last`)",
     "every row counts; the last batch is smaller"),
    ("`AssistantToTargetTranslator`: an assistant with another vocabulary",
     "the two models must share one"),
    ("errors and warnings in upstream's words",
     "ours name the field, the value and the way out"),
)  # fmt: skip


def text_folders() -> dict[str, bool]:
    """Upstream's folder of each family of text -> whether it is here."""
    import transformers.models.auto.modeling_auto as auto
    from transformers.models.auto.configuration_auto import model_type_to_module_name

    from cutaway.compat.table import _families

    def types(tasks: tuple[str, ...]) -> set[str]:
        tables = (getattr(auto, f"MODEL_FOR_{task}_MAPPING_NAMES", {}) for task in tasks)
        return {model_type_to_module_name(model_type) for table in tables for model_type in table}

    ours = set(_families())
    found = (types(TEXT_TASKS) - types(OTHER_TASKS)) | ours
    return {folder: folder in ours for folder in sorted(found)}


def public_names() -> tuple[dict[str, str], dict[str, list[str]]]:
    """(name of the library that concerns text -> its module, folder of a family of text -> its names)."""
    import transformers

    folders = text_folders()
    library: dict[str, str] = {}
    families: dict[str, list[str]] = defaultdict(list)
    for name, module in transformers._class_to_module.items():
        parts = module.split(".")
        if parts[0] != "models" or parts[1] == "auto":
            if not OTHER.search(name) and parts[0] not in ("decision", "backbone_utils", "image_utils"):
                library[name] = module
        elif parts[1] in folders and not OTHER.search(name):
            families[parts[1]].append(name)
    return library, {folder: sorted(names) for folder, names in sorted(families.items())}


def _order(name: str) -> tuple[str, str]:
    return name.lower(), name


def reason(name: str) -> str:
    """Why a name is not here."""
    return next((why for pattern, why in REASONS if re.fullmatch(pattern, name)), "not built")


def here(name: str) -> str:
    """The cell of a name of the library."""
    import cutaway
    from cutaway.compat.refused import INSTEAD

    if name in INSTEAD:
        return f"will not be: {INSTEAD[name]} (it can be imported; using it says so)"
    return "here" if name in cutaway.__all__ else f"will not be: {reason(name)}"


def not_built() -> dict[str, list[str]]:
    """Why a name is not here -> the names, those of upstream's top level that are no constants."""
    import transformers

    import cutaway

    library, families = public_names()
    found: dict[str, list[str]] = defaultdict(list)
    for folder, is_here in text_folders().items():
        for name in families.get(folder, ()):
            found[reason(name) if is_here else f"the family {folder} is not built"].append(name)
    for name in library:
        found[reason(name)].append(name)
    for name, module in transformers._class_to_module.items():
        parts = module.split(".")
        if (parts[0] != "models" or parts[1] == "auto") and name not in library and NO_TEXT.fullmatch(name):
            found["cutaway reads texts alone"].append(name)
    kept = {why: sorted(n for n in names if n not in cutaway._HOME and not n.isupper()) for why, names in found.items()}
    return {why: kept[why] for why in sorted(kept) if kept[why]}


def table() -> str:
    """The text of cutaway/compat/not_built.py."""
    lines = [
        '"""Upstream\'s names that are not here, by the reason; made by `python tests/upstream_names.py`."""',
        "",
        "NAMES: dict[str, str] = {",
    ]
    for why, names in not_built().items():
        rows = textwrap.wrap(" ".join(names), 108, break_on_hyphens=False, break_long_words=False)
        lines += [f"    {json.dumps(why)}: ("]
        lines += [f'        "{row}{" " if row is not rows[-1] else ""}"' for row in rows] + ["    ),"]
    return "\n".join([*lines, "}  # fmt: skip"]) + "\n"


def page() -> str:
    """The text of docs/upstream-names.md."""
    import transformers

    import cutaway
    from cutaway.compat.table import HOMES, MODULES

    library, families = public_names()
    every = [*library, *(n for names in families.values() for n in names)]
    count = sum(name in cutaway.__all__ for name in every)
    built = [n for folder, is_here in text_folders().items() if is_here for n in families.get(folder, ())]
    lines = [
        "# Upstream's names",
        "",
        f"Every public name of transformers {transformers.__version__} that concerns text, made by "
        "`python tests/upstream_names.py`. Here means: `from cutaway import NAME`.",
        f"Of {len(every)} names {count} are here: {sum(n in cutaway.__all__ for n in library)} of the library's "
        f"{len(library)}, {sum(n in cutaway.__all__ for n in built)} of the {len(built)} of the families that are "
        "built.",
        "",
        "Upstream's module paths are served too: `from cutaway.trainer_utils import get_last_checkpoint`. "
        "The list is at the end. A name that can be imported and not used raises an error that says what to use here.",
        "",
        "## The library",
        "",
        "| name | upstream's module | |",
        "| --- | --- | --- |",
        *(f"| `{name}` | `{library[name]}` | {here(name)} |" for name in sorted(library, key=_order)),
        "",
        "## The families that are built",
        "",
        "| family | here | not here |",
        "| --- | --- | --- |",
    ]
    folders = text_folders()
    for folder, names in families.items():
        if folders[folder]:
            yes = ", ".join(f"`{n}`" for n in names if n in cutaway.__all__)
            no = "; ".join(f"`{n}`: {reason(n)}" for n in names if n not in cutaway.__all__)
            lines.append(f"| {folder} | {yes} | {no} |")
    lines += ["", "## The families that are not built", "", "| family | names |", "| --- | --- |"]
    lines += [
        f"| {folder} | {', '.join(f'`{n}`' for n in names)} |"
        for folder, names in families.items()
        if not folders[folder]
    ]
    lines += ["", "## What is not going to be", "", "What scripts for upstream may ask beside names, and why not.", ""]
    lines += ["| what | why |", "| --- | --- |", *(f"| {what} | {why} |" for what, why in NEVER)]
    lines += [
        "",
        "Upstream's own tests with the import alone changed: 1,257 of 1,413 pass, those of its inside left out; the",
    ]
    lines += ["[log](log.md) (2026-11-30, all groups) has the table and why the others do not.", ""]
    lines += ["## Module paths", "", "Names below upstream's top level, and where they live here.", ""]
    lines += ["| name | lives in |", "| --- | --- |"]
    below = {name: home for home, names in HOMES.items() for name in names.split()}
    lines += [f"| `{name}` | `{below[name]}` |" for name in sorted(below, key=_order)]
    lines += ["", "Served paths: " + ", ".join(f"`cutaway.{path}`" for path in sorted(MODULES)), ""]
    lines[-2] += ", and `cutaway.models.<family>` with its `modeling_`, `configuration_` and `tokenization_` modules."
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    TABLE.write_text(table(), encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")
