/** An order as a plugin sees it. */

import { type Exact, parseExact, rawAt, valueAt } from "./json.ts";
import { toText } from "./text.ts";

/** What is known about an order besides its body. */
export interface OrderFacts {
  /** Id of the order. */
  readonly id: string;
  /** Path of the order's route, such as `/orders`. */
  readonly route: string;
  /** Type of the event, such as `OrderCreated`. */
  readonly kind: string;
  /** When the order was accepted, RFC 3339 UTC with milliseconds: the only clock a plugin sees. */
  readonly received: string;
  /** Counts the judgements of this order, from 1. */
  readonly attempt: number;
  /** More names and values, such as `traceparent`. */
  readonly attrs: readonly (readonly [string, string])[];
}

/** An order and what is known about it. Each form of the body is made when it is first asked for. */
export class Order implements OrderFacts {
  readonly id: string;
  readonly route: string;
  readonly kind: string;
  readonly received: string;
  readonly attempt: number;
  readonly attrs: readonly (readonly [string, string])[];
  /** The order: one JSON object in UTF-8, as patched by the plugins before this one. */
  readonly bytes: Uint8Array;

  #text: string | undefined;
  #json: any;
  #exact: Exact | undefined;

  constructor(facts: OrderFacts, bytes: Uint8Array) {
    this.id = facts.id;
    this.route = facts.route;
    this.kind = facts.kind;
    this.received = facts.received;
    this.attempt = facts.attempt;
    this.attrs = facts.attrs;
    this.bytes = bytes;
  }

  /** The order as text. */
  get text(): string {
    return (this.#text ??= toText(this.bytes));
  }

  /** The order as `JSON.parse` gives it. Its numbers are doubles: not for money, nor for ids of more than 15 digits. */
  get json(): any {
    return (this.#json ??= JSON.parse(this.text));
  }

  /** The order with numbers that keep their digits, as `JsonNumber`. Read it where sums have to be exact. */
  get exact(): { [name: string]: Exact } {
    return (this.#exact ??= parseExact(this.text)) as { [name: string]: Exact };
  }

  /** One member by its JSON Pointer (RFC 6901), as in `json`; `undefined` if it is absent. */
  get(pointer: string): any;
  get<T>(pointer: string): T | undefined;
  get(pointer: string): unknown {
    return valueAt(this.json, pointer);
  }

  /**
   * The exact text of one member by its JSON Pointer; `undefined` if it is absent. A string comes with its quotes.
   * Each call reads the order from its beginning: for many members take `exact`.
   */
  raw(pointer: string): string | undefined {
    return rawAt(this.text, pointer);
  }

  /** The value of one of the `attrs`. */
  attr(name: string): string | undefined {
    return this.attrs.find(([own]) => own === name)?.[1];
  }
}
