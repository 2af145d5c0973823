import { flushSync, mount } from "svelte";
import App from "./App.svelte";
import "./look.css";
import { held, run } from "./run.svelte";
import { follow } from "./address";
import { page, VIEWS } from "./page.svelte";
import { weight } from "./weights.svelte";

const written = { mask: "Filled in", "token-labels": "Labels" }[run.kind as string] ?? "Generation";
if (run.steps.length) page.views = [...VIEWS, ["generation", written]];
page.adopt(held.current);
page.strayed = !follow();
addEventListener("popstate", () => (page.strayed = !follow()));
document.title = `cutaway: ${run.text.slice(0, 60)}`;
mount(App, { target: document.getElementById("page") as HTMLElement });
flushSync();
// For the browser's console: what the page holds and shows. `cutaway.page.layer = 3` draws layer 3.
Object.assign(globalThis, { cutaway: { run, page, weight } });
performance.mark("ready");
document.documentElement.dataset.ready = "yes";
