import { flushSync, mount } from "svelte";
import "../look.css";
import "./studio.css";
import { page } from "../page.svelte";
import { run } from "../run.svelte";
import { weight } from "../weights.svelte";
import Studio from "./Studio.svelte";
import { studio } from "./studio.svelte";
import { tiles } from "./tiles.svelte";
import { writing } from "./writing.svelte";

mount(Studio, { target: document.getElementById("page") as HTMLElement });
flushSync();
Object.assign(globalThis, { cutaway: { run, page, weight, studio, tiles, writing } });
void studio.begin();
