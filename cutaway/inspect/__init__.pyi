# Written by `python tests/stubs.py --write` from the table of names in __init__.py: change that one.
from cutaway.inspect.ablation import Ablation, ablate
from cutaway.inspect.answer_parts import HeadAttribution, head_attribution
from cutaway.inspect.attribution import Attribution
from cutaway.inspect.comparison import Comparison, compare
from cutaway.inspect.explainer import explain
from cutaway.inspect.explanation import Explanation
from cutaway.inspect.faithfulness import Faithfulness, measure_faithfulness
from cutaway.inspect.features import Reconstruction, StrongFeatures, reconstruction, strong_features, top_texts
from cutaway.inspect.flow import Flow, Rollout, attention_flow, attention_rollout
from cutaway.inspect.generated_attribution import WrittenAttribution, written_attribution
from cutaway.inspect.gradients import input_x_gradient, integrated_gradients
from cutaway.inspect.head_importance import HeadImportance, gate_slopes, most_effective
from cutaway.inspect.head_patterns import HeadClusters, HeadScores, find_heads, head_clusters, head_scores
from cutaway.inspect.lens import Lens, TunedLens, logit_lens
from cutaway.inspect.logit_attribution import Contributions, StateParts, direct_logit_attribution, last_state
from cutaway.inspect.neurons import Excited, Promoted, TopNeurons, exciting_texts, promoted_tokens, top_neurons
from cutaway.inspect.norms import ValueNorms, value_norms
from cutaway.inspect.other_libraries import to_interp_engine, to_transformer_lens
from cutaway.inspect.patching import (
    CausalTrace,
    Patching,
    PathPatching,
    activation_patching,
    causal_trace,
    path_patching,
)
from cutaway.inspect.perturbation import occlude, shapley_values
from cutaway.inspect.probes import Probes, linear_probe, probe_layers
from cutaway.inspect.steering import SteeringVector, steering_vector
from cutaway.inspect.target import ChoiceTarget, SpanTarget, Target, VectorTarget
from cutaway.inspect.trace.trace import Trace
from cutaway.inspect.trace.trace_comparison import compare_traces
from cutaway.nn.activations.edits import Edit
from cutaway.nn.activations.recorder import Recorder
from cutaway.studio.notebook import studio

__all__ = [
    "Ablation",
    "Attribution",
    "CausalTrace",
    "ChoiceTarget",
    "Comparison",
    "Contributions",
    "Edit",
    "Excited",
    "Explanation",
    "Faithfulness",
    "Flow",
    "HeadAttribution",
    "HeadClusters",
    "HeadImportance",
    "HeadScores",
    "Lens",
    "Patching",
    "PathPatching",
    "Probes",
    "Promoted",
    "Reconstruction",
    "Recorder",
    "Rollout",
    "SpanTarget",
    "StateParts",
    "SteeringVector",
    "StrongFeatures",
    "Target",
    "TopNeurons",
    "Trace",
    "TunedLens",
    "ValueNorms",
    "VectorTarget",
    "WrittenAttribution",
    "ablate",
    "activation_patching",
    "attention_flow",
    "attention_rollout",
    "causal_trace",
    "compare",
    "compare_traces",
    "direct_logit_attribution",
    "exciting_texts",
    "explain",
    "find_heads",
    "gate_slopes",
    "head_attribution",
    "head_clusters",
    "head_scores",
    "input_x_gradient",
    "integrated_gradients",
    "last_state",
    "linear_probe",
    "logit_lens",
    "measure_faithfulness",
    "most_effective",
    "occlude",
    "path_patching",
    "probe_layers",
    "promoted_tokens",
    "reconstruction",
    "shapley_values",
    "steering_vector",
    "strong_features",
    "studio",
    "to_interp_engine",
    "to_transformer_lens",
    "top_neurons",
    "top_texts",
    "value_norms",
    "written_attribution",
]
