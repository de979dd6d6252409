// What the gateway calls.

import { Answer } from "./answer";
import { Scan, Value } from "./json";
import { Order, theServed } from "./plugin";

export function sluice_alloc(size: usize): usize {
  return heap.alloc(size);
}

export function sluice_process(document: usize, size: usize): u64 {
  // The document is walked through once, with the events as its last member.
  const scan = new Scan(document, document + size);
  let config = new Value(0, 0);
  while (scan.more()) {
    const name = scan.value();
    scan.colon();
    if (name.is("events")) break;
    const part = scan.value();
    if (name.is("config")) config = part;
  }
  const plugin = theServed();
  const answer = new Answer();
  const refused = plugin.configure(config);
  if (refused.length > 0) {
    answer.put('{"refused":');
    answer.problems(refused);
  } else {
    answer.put('{"outcomes":[');
    for (let more = false; scan.more(); more = true) {
      if (more) answer.put(",");
      const order = new Order(scan);
      answer.outcome(order.seq, plugin.judge(order));
    }
    answer.put("]");
  }
  answer.put("}");
  return (<u64>answer.start << 32) | answer.size;
}
