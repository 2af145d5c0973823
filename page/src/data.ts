// The JSON that cutaway/inspect/page/page.py puts into a page. Labels are made visible there; they are shown as text only.

/** Which of the two rows of tokens: the text's, or what the decoder of an encoder-decoder read. */
export type StripName = "tokens" | "target";

/** A number that the model gave; null where it was not finite. */
export type Figure = number | null;

export interface Token {
  index: number;
  label: string;
  special: boolean;
  generated: boolean;
}

/** Matrices as codes, see cutaway/inspect/page/packing.py: value = code * the matrix's step, true to `error`. */
export interface Packed {
  /** layers, heads, rows, columns */
  shape: [number, number, number, number];
  /** one for each matrix */
  steps: number[];
  error: number;
  /** whether the code 65535 stands for what was not finite */
  broken: boolean;
  /** one for each matrix: base64 of its deflated codes */
  blocks: string[];
  /** where the matrices are served, in place of blocks */
  tensor?: string;
  /** of a long text, whose matrices come in tiles: by how many rows its heads were measured */
  sampled?: number;
}

export interface Attention {
  /** with {i} for the layer */
  address: string;
  rows: StripName;
  columns: StripName;
  /** name -> [layers][heads] */
  measures: Record<string, Figure[][]>;
  /** the head that is shown first, and why it is */
  layer: number;
  head: number;
  chosen: string;
  packed: Packed;
  /** [layers, 1, rows, columns] */
  rollout?: Packed;
  /** [layers][heads][columns]: the length of what a weight of 1 carries */
  value_norms?: Figure[][][];
}

/** Each [states][tokens]. */
export interface States {
  name: string;
  tokens: StripName;
  places: string[];
  norm: Figure[][];
  to_embedding: Figure[][];
  to_previous: Figure[][];
}

/** `ids` and `probability` [states][tokens][k], likeliest first; `kl` [states][tokens] in nats. */
export interface Lens {
  tokens: StripName;
  places: string[];
  ids: number[][][];
  probability: Figure[][][];
  kl: Figure[][];
  labels: Record<string, string>;
}

/** One method's scores of the text's tokens. */
export interface Attribution {
  method: string;
  scores: Figure[];
  /** the logit, and what it is without any token */
  value: Figure;
  base: Figure;
  /** the share of the change that the scores miss; null where the method promises no sum */
  residual: Figure;
  steps: number;
  note: string;
}

/** What each part of the model added to an answer; `base`: what its head says of nothing; `residual`: what is missed. */
export interface Parts {
  names: string[];
  values: Figure[];
  total: Figure;
  logit: Figure;
  base: Figure;
  residual: Figure;
}

/** `points` [states][tokens] of the principal plane; `shares`: of the variance, each axis's. */
export interface Plane {
  points: [Figure, Figure][][];
  shares: [Figure, Figure];
}

/** A token that the model might have given. */
export interface Likely {
  label: string;
  probability: Figure;
}

export interface Candidate extends Likely {
  id: number;
  logit: Figure;
}

export interface Step {
  position: number;
  picked: Candidate;
  candidates: Candidate[];
}

/** What would have followed another token at a step; the other token is the first. */
export interface Branch {
  step: number;
  tokens: Likely[];
}

export interface Evidence {
  answer: string;
  /** what of the answer is shared out: its logit, a span's two, a cosine */
  number: string;
  missing: Record<string, string>;
  lens: Lens | null;
  attributions: Attribution[];
  parts: Parts | null;
  planes: Record<string, Plane>;
  branches: Branch[];
}

export type Topic =
  | "heads"
  | "matrix"
  | "weighted"
  | "rollout"
  | "states"
  | "lens"
  | "attribution"
  | "answer"
  | "steps"
  | "tree"
  | "plane"
  | "parts"
  | "through";

export type Color = [number, number, number];

export interface Run {
  text: string;
  summary: string;
  provenance: string;
  kind: "labels" | "next-token" | "target" | "mask" | "states" | "token-labels" | "span" | "choices";
  tokens: Token[];
  target: Token[];
  attention: Record<string, Attention>;
  /** the name of the attention that is shown first, and the token that is followed first */
  shown: string;
  token: number;
  states: Record<string, States>;
  answers: Candidate[];
  function: "softmax" | "sigmoid" | "none" | "";
  steps: Step[];
  generated: string;
  certificate: { address: string; head: number; error: Figure } | null;
  evidence: Evidence;
  /** name of a measure -> what it says */
  meanings: Record<string, string>;
  /** what stands behind each "?": name of the line -> words */
  guide: Record<Topic, Record<string, string>>;
  /** colours from low to high, for light paper */
  ramps: { attention: Color[]; measure: Color[] };
}
