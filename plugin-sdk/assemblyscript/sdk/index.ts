// Plugins for Sluice in AssemblyScript.

export { Kind, Member, Value } from "./json";
export { log } from "./log";
export { Order, Plugin, serve } from "./plugin";
export { Patch, Problem, Verdict } from "./verdict";
export { quoted } from "./answer";
// What the gateway calls. A plugin exports it again: `export { sluice_alloc, sluice_process } from "sluice";`
export { sluice_alloc, sluice_process } from "./exports";
