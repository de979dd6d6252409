// What the gateway calls.

import { Answer } from "./answer";
import { Value } from "./json";
import { Order, theServed } from "./plugin";

export function sluice_alloc(size: usize): usize {
  return heap.alloc(size);
}

export function sluice_process(document: usize, size: usize): u64 {
  const question = new Value(document, document + size);
  const plugin = theServed();
  const answer = new Answer();
  const refused = plugin.configure(question.get("config"));
  if (refused.length > 0) {
    answer.put('{"refused":');
    answer.problems(refused);
  } else {
    answer.put('{"outcomes":[');
    const events = question.get("events").elements();
    for (let i = 0; i < events.length; i++) {
      if (i > 0) answer.put(",");
      answer.outcome(events[i].get("seq").raw, plugin.judge(new Order(events[i], events[i].get("order"))));
    }
    answer.put("]");
  }
  answer.put("}");
  return (<u64>answer.start << 32) | answer.size;
}
