// The lab: the answer before and after the changes, and a sweep over all heads.
import type { Candidate, Figure } from "../data";
import { studio } from "./studio.svelte";
import { ask, events } from "./wire";

export interface Answer {
  answers: Candidate[];
  moved: { kl: Figure; states: { name: string; places: string[]; distance: Figure[] }[] };
}

class Lab {
  before = $state.raw<Answer | undefined>();
  after = $state.raw<Answer | undefined>();
  error = $state("");
  sweep = $state.raw<{ answer: string; value: number; heads: number; layers: number; tower: string; cross: boolean } | undefined>();
  rows = $state.raw<number[][]>([]);
  running = $state(false);
  #stop: AbortController | undefined;
  #asked = 0;

  /** The ten heads whose loss moves the answer most. */
  best = $derived(
    this.rows
      .flatMap((row, layer) => row.map((effect, head) => ({ layer, head, effect })))
      .sort((a, b) => Math.abs(b.effect) - Math.abs(a.effect))
      .slice(0, 10),
  );
  most = $derived(Math.max(...this.rows.flat().map(Math.abs), 1e-9));

  async compare(): Promise<void> {
    const number = ++this.#asked;
    this.error = "";
    try {
      const { before, after } = await ask<{ before: Answer; after: Answer }>("/studio/lab", {
        model: studio.model,
        text: studio.text,
        changes: studio.changes,
      });
      if (number === this.#asked) [this.before, this.after] = [before, after];
    } catch (error) {
      if (number === this.#asked) this.error = error instanceof Error ? error.message : String(error);
    }
  }

  async run(tower: "" | "encoder" | "decoder", cross: boolean): Promise<void> {
    this.cancel();
    const stop = (this.#stop = new AbortController());
    [this.running, this.rows, this.error] = [true, [], ""];
    try {
      await events(
        "/studio/sweep",
        { model: studio.model, text: studio.text, tower, cross },
        (name, data) => {
          if (name === "start") this.sweep = { ...(data as { answer: string; value: number; heads: number; layers: number }), tower, cross };
          else if (name === "row") this.rows = [...this.rows, data.effect as number[]];
          else if (name === "end" && data.error) this.error = data.error as string;
        },
        stop.signal,
      );
    } catch (error) {
      if (!stop.signal.aborted) this.error = error instanceof Error ? error.message : String(error);
    } finally {
      if (this.#stop === stop) this.running = false;
    }
  }

  cancel(): void {
    this.#stop?.abort();
    this.running = false;
  }
}

export const lab = new Lab();
