// What a plugin answers.

import { quoted } from "./answer";

/** One finding about an order, or about the plugin's configuration. */
export class Problem {
  detail: string | null = null;
  pointer: string | null = null;

  constructor(
    /** Stable word for programs, such as `quantity-not-positive`. */
    readonly code: string,
    /** Short text for people, the same for each order. */
    readonly title: string,
  ) {}

  /** Names the member at fault by its JSON Pointer (RFC 6901). */
  at(pointer: string): Problem {
    this.pointer = pointer;
    return this;
  }

  /** Says what is wrong with this order. */
  because(detail: string): Problem {
    this.detail = detail;
    return this;
  }
}

export enum OpKind {
  Set,
  Remove,
  Header,
}

/** One change of an order. */
export class Op {
  constructor(
    readonly kind: OpKind,
    readonly target: string,
    readonly value: string,
  ) {}
}

/** Changes of an order, applied in this sequence. All else keeps its bytes. */
export class Patch {
  readonly ops: Op[] = [];

  /**
   * Creates or replaces a member, or appends to an array with `-`; missing objects on the way are created.
   * The value is an integer, a bool or a string. Amounts of money are strings.
   */
  set<T>(pointer: string, value: T): Patch {
    if (isString<T>()) return this.setRaw(pointer, quoted(<string>value));
    if (isBoolean<T>()) return this.setRaw(pointer, value ? "true" : "false");
    if (isInteger<T>()) return this.setRaw(pointer, value.toString());
    ERROR("a value is an integer, a bool or a string; for all else there is setRaw");
  }

  /** The same with a value that is JSON already; its bytes are kept. */
  setRaw(pointer: string, json: string): Patch {
    this.ops.push(new Op(OpKind.Set, pointer, json));
    return this;
  }

  /** Removes a member. */
  remove(pointer: string): Patch {
    this.ops.push(new Op(OpKind.Remove, pointer, ""));
    return this;
  }

  /** Gives the order's record a header. */
  header(name: string, value: string): Patch {
    this.ops.push(new Op(OpKind.Header, name, value));
    return this;
  }
}

export enum VerdictKind {
  Accept,
  Enrich,
  Reject,
  RetryLater,
  Fault,
}

/** What becomes of an order. */
export class Verdict {
  ops: Op[] = [];
  problems: Problem[] = [];
  code: string = "";
  reason: string = "";
  afterMs: u32 = 0;
  retryable: bool = false;

  private constructor(readonly kind: VerdictKind) {}

  /** The order may pass as it is. */
  static accept(): Verdict {
    return new Verdict(VerdictKind.Accept);
  }

  /** The order may pass with these changes. */
  static enrich(patch: Patch): Verdict {
    const verdict = new Verdict(patch.ops.length == 0 ? VerdictKind.Accept : VerdictKind.Enrich);
    verdict.ops = patch.ops;
    return verdict;
  }

  /** The order is refused for good. At least one problem. */
  static reject(problems: Problem[]): Verdict {
    const verdict = new Verdict(VerdictKind.Reject);
    verdict.problems = problems;
    return verdict;
  }

  /** "Ask me again": the order is held and judged anew, not before `afterMs` have passed. The client sees the reason. */
  static retryLater(afterMs: u32, reason: string): Verdict {
    const verdict = new Verdict(VerdictKind.RetryLater);
    verdict.afterMs = afterMs;
    verdict.reason = reason;
    return verdict;
  }

  /** The plugin itself has failed. The order is held. */
  static fault(code: string, detail: string, retryable: bool = false): Verdict {
    const verdict = new Verdict(VerdictKind.Fault);
    verdict.code = code;
    verdict.reason = detail;
    verdict.retryable = retryable;
    return verdict;
  }
}
