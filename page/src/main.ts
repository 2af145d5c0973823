import { flushSync, mount } from "svelte";
import App from "./App.svelte";
import "./look.css";
import { held, run } from "./run.svelte";
import { page, VIEWS } from "./page.svelte";
import { weight } from "./weights.svelte";

if (run.steps.length) page.views = [...VIEWS, ["generation", run.kind === "mask" ? "Filled in" : "Generation"]];
page.adopt(held.current);
document.title = `cutaway: ${run.text.slice(0, 60)}`;
mount(App, { target: document.getElementById("page") as HTMLElement });
flushSync();
// For the browser's console: what the page holds and shows. `cutaway.page.layer = 3` draws layer 3.
Object.assign(globalThis, { cutaway: { run, page, weight } });
performance.mark("ready");
document.documentElement.dataset.ready = "yes";
