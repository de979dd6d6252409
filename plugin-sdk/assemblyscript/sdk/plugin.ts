// A plugin and what it is given.

import { Value } from "./json";
import { Problem, Verdict } from "./verdict";

/** An order and what is known about it. */
export class Order {
  constructor(
    private readonly event: Value,
    /** The order: a JSON object, as patched by the plugins before this one. */
    readonly body: Value,
  ) {}

  /** Id of the order. */
  get id(): string {
    return this.event.get("id").text;
  }

  /** Path of the order's route, such as `/orders`. */
  get route(): string {
    return this.event.get("route").text;
  }

  /** Type of the event, such as `OrderCreated`. */
  get kind(): string {
    return this.event.get("kind").text;
  }

  /** When the order was accepted, RFC 3339 UTC with milliseconds: the only clock a plugin sees. */
  get received(): string {
    return this.event.get("received").text;
  }

  /** Counts the judgements of this order, from 1. */
  get attempt(): u32 {
    return <u32>this.event.get("attempt").integer(1);
  }

  /** One of the further values, such as `traceparent`; empty if it is absent. */
  attr(name: string): string {
    return this.event.get("attrs").get(name).text;
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
