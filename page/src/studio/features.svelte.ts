// Features of the sparse autoencoders that are attached to the model: beside the tokens, and the texts that excite one.
import type { Figure } from "../data";
import { studio } from "./studio.svelte";
import { ask } from "./wire";

export interface Sae {
  name: string;
  reads: string;
  writes: string;
  features: number;
}
interface Beside {
  saes: Sae[];
  sae?: string;
  tokens: { label: string; on: number; features: { feature: number; value: number }[] }[];
  explained?: Figure;
  strength?: number[] | null;
  left?: number;
}
export interface Place {
  text: number;
  position: number;
  value: number;
  labels: string[];
  at: number;
}

class Features {
  shown = $state.raw<Beside>({ saes: [], tokens: [] });
  sae = $state("");
  feature = $state<number | undefined>();
  places = $state.raw<Place[] | undefined>();
  error = $state("");
  #asked = 0;
  #texts = 0;

  async read(): Promise<void> {
    const number = ++this.#asked;
    const { model, text, changes } = studio;
    this.error = "";
    try {
      const found = await ask<Beside>("/studio/features", {
        model,
        text,
        changes,
        sae: this.shown.saes.some(({ name }) => name === this.sae) ? this.sae : "",
        ...(this.feature === undefined ? {} : { feature: this.feature }),
      });
      if (number !== this.#asked) return;
      this.shown = found;
      this.sae = found.sae ?? "";
    } catch (error) {
      if (number === this.#asked) this.error = error instanceof Error ? error.message : String(error);
    }
  }

  choose(sae: string): void {
    [this.sae, this.feature, this.places] = [sae, undefined, undefined];
    void this.read();
  }

  follow(feature: number): void {
    [this.feature, this.places] = [feature, undefined];
    void this.read();
  }

  forget(): void {
    [this.sae, this.feature, this.places, this.shown] = ["", undefined, undefined, { saes: [], tokens: [] }];
  }

  async look(texts: string[]): Promise<void> {
    if (this.feature === undefined || !texts.length) return;
    const number = ++this.#texts;
    this.error = "";
    try {
      const { places } = await ask<{ places: Place[] }>("/studio/exciting", { model: studio.model, sae: this.sae, feature: this.feature, texts });
      if (number === this.#texts) this.places = places;
    } catch (error) {
      if (number === this.#texts) this.error = error instanceof Error ? error.message : String(error);
    }
  }
}

export const features = new Features();
