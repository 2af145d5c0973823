// The arrow keys, and Home and End: to the first or last of a row.
import type { Attachment } from "svelte/attachments";
import { between } from "./figure";
import { held } from "./run.svelte";

const ARROWS: Record<string, [down: number, right: number]> = {
  ArrowUp: [-1, 0],
  ArrowDown: [1, 0],
  ArrowLeft: [0, -1],
  ArrowRight: [0, 1],
  Home: [0, -Infinity],
  End: [0, Infinity],
};

/** A handler of keys that moves by the arrows. */
export function arrows(move: (down: number, right: number) => void): (event: KeyboardEvent) => void {
  return (event) => {
    const step = ARROWS[event.key];
    if (!step || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    move(...step);
  };
}

/**
 * A group of buttons with tabindex -1 becomes one stop of the Tab key, with arrow keys inside.
 *
 * width: how many buttons a row holds, 0 if they flow. moved: what else happens to the button that an arrow led to.
 */
export function roving(width: number, moved: (index: number) => void = () => {}): Attachment<HTMLElement> {
  return (group) => {
    const all = (): HTMLButtonElement[] => [...group.querySelectorAll("button")];
    void held.current; // with another run there are other buttons
    let home = all().find((button) => button.ariaPressed === "true") ?? all()[0];
    if (home) home.tabIndex = 0;
    const came = (event: FocusEvent): void => {
      if (!(event.target instanceof HTMLButtonElement)) return;
      home.tabIndex = -1;
      home = event.target;
      home.tabIndex = 0;
    };
    const move = arrows((down, right) => {
      const buttons = all();
      const at = buttons.indexOf(document.activeElement as HTMLButtonElement);
      if (at < 0) return;
      const row = width ? between(Math.floor(at / width) + down, buttons.length / width) * width : 0;
      const next = width ? row + between((at % width) + right, width) : between(at + right + down, buttons.length);
      moved(next);
      buttons[next].focus();
    });
    group.addEventListener("focusin", came);
    group.addEventListener("keydown", move);
    return () => {
      group.removeEventListener("focusin", came);
      group.removeEventListener("keydown", move);
    };
  };
}
