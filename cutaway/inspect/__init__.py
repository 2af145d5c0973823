"""Look inside a model while it runs: `explain` gives everything that one run showed, as data, pictures or a page.

Beside it stand the measures, each in the file of its noun: functions of a model and texts, or of recorded tensors.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_MODULES = {
    "cutaway.inspect.ablation": "Ablation ablate",
    "cutaway.inspect.comparison": "Comparison compare",
    "cutaway.inspect.logit_attribution": "Contributions StateParts direct_logit_attribution last_state",
    "cutaway.inspect.explainer": "explain",
    "cutaway.inspect.explanation": "Explanation",
    "cutaway.inspect.faithfulness": "Faithfulness measure_faithfulness",
    "cutaway.inspect.features": "Reconstruction StrongFeatures reconstruction strong_features top_texts",
    "cutaway.inspect.flow": "Flow Rollout attention_flow attention_rollout",
    "cutaway.inspect.attribution": "Attribution",
    "cutaway.inspect.gradients": "input_x_gradient integrated_gradients",
    "cutaway.inspect.answer_parts": "HeadAttribution head_attribution",
    "cutaway.inspect.head_importance": "HeadImportance gate_slopes most_effective",
    "cutaway.inspect.head_patterns": "HeadClusters HeadScores find_heads head_clusters head_scores",
    "cutaway.inspect.lens": "Lens TunedLens logit_lens",
    "cutaway.inspect.neurons": "Excited Promoted TopNeurons exciting_texts promoted_tokens top_neurons",
    "cutaway.inspect.norms": "ValueNorms value_norms",
    "cutaway.inspect.other_libraries": "to_interp_engine to_transformer_lens",
    "cutaway.inspect.patching": "CausalTrace PathPatching Patching activation_patching causal_trace path_patching",
    "cutaway.inspect.probes": "Probes linear_probe probe_layers",
    "cutaway.inspect.perturbation": "occlude shapley_values",
    "cutaway.inspect.steering": "SteeringVector steering_vector",
    "cutaway.inspect.target": "ChoiceTarget SpanTarget Target VectorTarget",
    "cutaway.inspect.trace.trace": "Trace",
    "cutaway.inspect.trace.trace_comparison": "compare_traces",
    "cutaway.inspect.generated_attribution": "WrittenAttribution written_attribution",
    "cutaway.studio.notebook": "studio",
    "cutaway.nn.activations.edits": "Edit",
    "cutaway.nn.activations.recorder": "Recorder",
}
_HOME = {name: module for module, names in _MODULES.items() for name in names.split()}
__all__ = sorted(_HOME)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
