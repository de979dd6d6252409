// A plugin and what it is given.

import { Scan, Value } from "./json";
import { Problem, Verdict } from "./verdict";

const absent = new Value(0, 0);

/** An order and what is known about it. */
export class Order {
  private idValue: Value = absent;
  private routeValue: Value = absent;
  private kindValue: Value = absent;
  private receivedValue: Value = absent;
  private attemptValue: Value = absent;
  private attrs: Value = absent;
  /** Its number in the batch. */
  seq: string = "";
  /** The order: a JSON object, as patched by the plugins before this one. */
  body: Value = absent;

  /** Takes the event that comes next. */
  constructor(scan: Scan) {
    while (scan.more()) {
      const name = scan.value();
      scan.colon();
      const part = scan.value();
      if (name.is("seq")) this.seq = part.raw;
      else if (name.is("id")) this.idValue = part;
      else if (name.is("route")) this.routeValue = part;
      else if (name.is("kind")) this.kindValue = part;
      else if (name.is("received")) this.receivedValue = part;
      else if (name.is("attempt")) this.attemptValue = part;
      else if (name.is("attrs")) this.attrs = part;
      else if (name.is("order")) this.body = part;
    }
    scan.at++; // the brace
  }

  /** Id of the order. */
  get id(): string {
    return this.idValue.text;
  }

  /** Path of the order's route, such as `/orders`. */
  get route(): string {
    return this.routeValue.text;
  }

  /** Type of the event, such as `OrderCreated`. */
  get kind(): string {
    return this.kindValue.text;
  }

  /** When the order was accepted, RFC 3339 UTC with milliseconds: the only clock a plugin sees. */
  get received(): string {
    return this.receivedValue.text;
  }

  /** Counts the judgements of this order, from 1. */
  get attempt(): u32 {
    return <u32>this.attemptValue.integer(1);
  }

  /** One of the further values, such as `traceparent`; empty if it is absent. */
  attr(name: string): string {
    return this.attrs.get(name).text;
  }
}

/** What an author writes. */
export abstract class Plugin {
  /** Called once, before all else, with the operator's configuration: a JSON object. Problems refuse the plugin. */
  configure(config: Value): Problem[] {
    return [];
  }

  /** Judges one order. */
  abstract judge(order: Order): Verdict;
}

let served: Plugin | null = null;

/** Says which plugin this module is. To be called once, at the top level. */
export function serve(plugin: Plugin): void {
  served = plugin;
}

export function theServed(): Plugin {
  if (served === null) throw new Error("no plugin: call serve(new MyPlugin()) at the top level of plugin.ts");
  return served!;
}
