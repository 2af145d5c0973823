"""What stands behind each "?" of the page: the formula, its paper, and what not to read into the view."""

from __future__ import annotations

GUIDE: dict[str, dict[str, str]] = {
    "heads": {
        "shows": "One cell per head, coloured by one number about that head's attention, averaged over the text.",
        "formula": "effect: d log p(answer) / d gate of the head's output, at gate 1. entropy: mean over q of "
        "-sum over k of p(q,k) log2 p(q,k). distance: mean over q of sum over k of p(q,k) |q - k|. focus: mean over "
        "q of the largest p(q,k) with |q - k| > 1.",
        "paper": "Clark et al., 2019, What Does BERT Look At? (arXiv 1906.04341).",
        "caution": "A striking pattern need not matter for the answer: many heads can be removed without loss "
        "(Michel et al., 2019, arXiv 1905.10650).",
    },
    "matrix": {
        "shows": "One head. A row is a token that looks (query), a column one that is looked at (key). Rows sum to 1.",
        "formula": "p(q,k) = softmax over k of (q . k / sqrt(d) + mask).",
        "paper": "Vaswani et al., 2017, Attention Is All You Need (arXiv 1706.03762).",
        "caution": "Weights say where a head looks, not what it takes from there, nor that the answer depends on it "
        "(Jain and Wallace, 2019, arXiv 1902.10186). First tokens and separators often only soak up what is left over.",
    },
    "weighted": {
        "shows": "Each weight times the length of what it carries into the stream.",
        "formula": "||p(q,k) v(k) W_h|| = p(q,k) ||v(k) W_h||.",
        "paper": "Kobayashi et al., 2020, Attention is Not Only a Weight (arXiv 2004.10102).",
        "caution": "A long vector may still point where nothing later reads it.",
    },
    "rollout": {
        "shows": "How much of each position, after this layer, came from each input position, by attention alone.",
        "formula": "R(l) = (I / 2 + mean over heads of P(l) / 2) R(l-1), R(0) = I. Rows sum to 1.",
        "paper": "Abnar and Zuidema, 2020, Quantifying Attention Flow (arXiv 2005.00928).",
        "caution": "Values, feed-forward layers and norms are left out, and heads are averaged.",
    },
    "states": {
        "shows": "How the vector of the chosen token turns and grows from the embedding to the last layer.",
        "formula": "cos(a, b) = a . b / (|a| |b|), to the embedding and to the state before; |a| is the length.",
        "paper": "Ethayarajh, 2019, How Contextual are Contextualized Word Representations? (arXiv 1909.00512).",
        "caution": "A few large coordinates can dominate a cosine (Timkey and van Schijndel, 2021, arXiv 2109.04404).",
    },
    "lens": {
        "shows": "What the model would say if it stopped after each layer: the likeliest token there, and how likely.",
        "formula": "softmax(W norm(state)); KL(answer || state) in nats.",
        "paper": "nostalgebraist, 2020, interpreting GPT: the logit lens.",
        "caution": "Early layers were never trained to be read so; there it may show nothing (Belrose et al., 2023, "
        "arXiv 2303.08112).",
    },
    "attribution": {
        "shows": "What each token did to the logit of the answer: orange for it, blue against it.",
        "formula": "Integrated gradients: (x - b) . mean over a in 0..1 of the gradient at b + a (x - b), b the mean "
        "token vector. Input x gradient: x . gradient. Occlusion: f(x) - f(x without the token). Shapley: sum over "
        "sets S of other tokens of |S|! (n - |S| - 1)! / n! (f(S and the token) - f(S)), the rest replaced by b.",
        "paper": "Sundararajan et al., 2017 (arXiv 1703.01365); Shrikumar et al., 2016 (arXiv 1605.01713); Zeiler and "
        "Fergus, 2014 (arXiv 1311.2901); Shapley, 1953, and Lundberg and Lee, 2017 (arXiv 1705.07874).",
        "caution": "The residual is the part of the change that the scores miss; above 5% only their order may be "
        "read. Of many tokens, Shapley asks drawn sets only: the sum still holds, and each score may be off by the "
        "standard error that is given. It and occlusion read texts with holes, which the model never met. The methods "
        "answer different questions: where they differ, none of them is the explanation.",
    },
    "answer": {
        "shows": "What the model answers, and how sure it says it is.",
        "formula": "softmax: exp(z_i) / sum exp(z_j); sigmoid: 1 / (1 + exp(-z_i)) of each logit.",
        "paper": "Guo et al., 2017, On Calibration of Modern Neural Networks (arXiv 1706.04599).",
        "caution": "Such a number is a frequency only if the model is calibrated, and most are too sure.",
    },
    "steps": {
        "shows": "Each token that was written or filled in, and what else was likely there.",
        "formula": "p(token | all before) = softmax of the logits at that place; the likeliest is taken each time.",
        "paper": "Holtzman et al., 2020, The Curious Case of Neural Text Degeneration (arXiv 1904.09751).",
        "caution": "The probabilities are of single tokens after this very beginning, not of statements being true.",
    },
    "tree": {
        "shows": "In the middle what was written; beside it the likeliest other tokens, and what would have followed.",
        "formula": "Each node: softmax of the logits after all that leads to it. Branches go on greedily.",
        "paper": "Spinner et al., 2024, generAItor: Tree-in-the-Loop Text Generation (arXiv 2403.07627).",
        "caution": "Only the next best branches are drawn, and only their beginnings: most of the probability may lie "
        "in texts that are not here.",
    },
    "plane": {
        "shows": "The path of the chosen token's direction, from the embedding to the last layer, in the plane in "
        "which the directions of all states of the text spread most.",
        "formula": "Principal components of all x / |x|: the two eigenvectors of their covariance with most variance.",
        "paper": "Pearson, 1901, On Lines and Planes of Closest Fit.",
        "caution": "Points that are close here may be far apart in the other dimensions.",
    },
    "parts": {
        "shows": "What each part of the model added to the logit, largest first; the parts sum to it.",
        "formula": "logit = u . sum of parts + bias, the last norm's scale held as the whole state gave it.",
        "paper": "Elhage et al., 2021, A Mathematical Framework for Transformer Circuits.",
        "caution": "Only what goes to the output directly: what a part does through later layers is in their share.",
    },
    "through": {
        "shows": "What each part of the model added to the answer, largest first, through the layers of the head: a "
        "pooler, a layer with its norm, a span's two columns, a mean. With what the head says of zeros they sum to it.",
        "formula": "part . integral over a in 0..1 of the head's gradient at a x state; every norm's scale is held as "
        "the whole state gave it.",
        "paper": "Sundararajan et al., 2017 (arXiv 1703.01365), of the head alone; Elhage et al., 2021, A Mathematical "
        "Framework for Transformer Circuits.",
        "caution": "Only what goes to the head directly: what a part does through later layers is in their share. "
        "Where the head bends much, another way from zeros to the state would share it out otherwise.",
    },
}
