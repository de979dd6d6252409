// Judges single orders with a built plugin, under node and without a gateway.

import { readFileSync } from "node:fs";

const event =
  '{"seq":0,"id":"an-order","route":"/orders","kind":"OrderCreated","received":"2026-01-02T03:04:05.678Z","attempt":1,"attrs":{},"order":';

/** Reads a module. `judge(config, order)` takes JSON texts and gives back the outcome, `refused(config)` the problems. */
export function load(file) {
  const module = new WebAssembly.Module(readFileSync(file));
  const ask = (config, events) => {
    const lines = [];
    let memory;
    const text = (start, size) => new TextDecoder().decode(new Uint8Array(memory.buffer, start, size));
    const utf16 = (start) => {
      const size = new DataView(memory.buffer).getUint32(start - 4, true);
      return new TextDecoder("utf-16le").decode(new Uint8Array(memory.buffer, start, size));
    };
    const instance = new WebAssembly.Instance(module, {
      sluice: { log: (level, start, size) => lines.push(text(start, size)) },
      env: {
        abort: (message, file, line, column) => {
          throw new Error(`${message ? utf16(message) : "abort"} (${file ? utf16(file) : "?"}:${line}:${column})`);
        },
      },
    });
    memory = instance.exports.memory;
    instance.exports._initialize();
    const document = new TextEncoder().encode(`{"abi":1,"config":${config},"events":[${events}]}`);
    const start = instance.exports.sluice_alloc(document.length);
    new Uint8Array(memory.buffer).set(document, start);
    const answer = BigInt.asUintN(64, instance.exports.sluice_process(start, document.length));
    const raw = text(Number(answer >> 32n), Number(answer & 0xffffffffn));
    return { answer: JSON.parse(raw), raw, lines };
  };
  return {
    judge(config, order) {
      JSON.parse(order);
      const { answer, raw, lines } = ask(config, `${event}${order}}`);
      if (answer.refused) throw new Error(`the plugin refuses its configuration: ${raw}`);
      return { ...answer.outcomes[0], raw, lines };
    },
    refused: (config) => ask(config, "").answer.refused,
  };
}
