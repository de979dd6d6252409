// Writes the document that a plugin answers with.

import { Problem, Op, OpKind, Verdict, VerdictKind } from "./verdict";

/** Bytes that grow. They lie outside the collected memory, so the gateway can read them when the call has returned. */
export class Answer {
  start: usize = heap.alloc(4096);
  size: usize = 0;
  private capacity: usize = 4096;

  outcome(seq: string, verdict: Verdict): void {
    this.put('{"seq":');
    this.put(seq);
    switch (verdict.kind) {
      case VerdictKind.Accept:
        this.put(',"verdict":"accept"');
        break;
      case VerdictKind.Enrich:
        this.put(',"verdict":"enrich","patch":[');
        for (let i = 0; i < verdict.ops.length; i++) this.change(verdict.ops[i], i > 0);
        this.put("]");
        break;
      case VerdictKind.Reject:
        this.put(',"verdict":"reject","problems":');
        this.problems(verdict.problems);
        break;
      case VerdictKind.RetryLater:
        this.put(',"verdict":"retry-later","afterMs":');
        this.put(verdict.afterMs.toString());
        this.member("reason", verdict.reason);
        break;
      default:
        this.put(',"verdict":"fault"');
        this.member("code", verdict.code);
        this.member("detail", verdict.reason);
        this.put(verdict.retryable ? ',"retryable":true' : ',"retryable":false');
    }
    this.put("}");
  }

  problems(all: Problem[]): void {
    this.put("[");
    for (let i = 0; i < all.length; i++) {
      const problem = all[i];
      this.put(i > 0 ? ',{"code":' : '{"code":');
      this.string(problem.code);
      this.member("title", problem.title);
      if (problem.detail !== null) this.member("detail", problem.detail!);
      if (problem.pointer !== null) this.member("pointer", problem.pointer!);
      this.put("}");
    }
    this.put("]");
  }

  private change(op: Op, more: bool): void {
    if (more) this.put(",");
    this.put(op.kind == OpKind.Set ? '{"set":' : op.kind == OpKind.Remove ? '{"remove":' : '{"header":');
    this.string(op.target);
    if (op.kind == OpKind.Header) this.member("value", op.value);
    if (op.kind == OpKind.Set) {
      this.put(',"value":');
      this.put(op.value);
    }
    this.put("}");
  }

  private member(name: string, text: string): void {
    this.put(',"');
    this.put(name);
    this.put('":');
    this.string(text);
  }

  private string(text: string): void {
    this.put(quoted(text));
  }

  /** Writes a text in UTF-8; a half of a pair of surrogates becomes the replacement character. */
  put(text: string): void {
    const room = <usize>text.length * 3;
    if (this.size + room > this.capacity) {
      this.capacity = max(this.capacity << 1, this.size + room);
      this.start = heap.realloc(this.start, this.capacity);
    }
    const to = this.start + this.size;
    const from = changetype<usize>(text);
    this.size += String.UTF8.encodeUnsafe(from, text.length, to, false, String.UTF8.ErrorMode.REPLACE);
  }
}

/** A text as a JSON string: escapes for quotes, backslashes and control characters, all else as it is. */
export function quoted(text: string): string {
  const size = <usize>text.length;
  const from = changetype<usize>(text);
  let extra: usize = 2;
  for (let i: usize = 0; i < size; i++) {
    const c = load<u16>(from + (i << 1));
    extra += c < 0x20 ? 5 : c == 0x22 || c == 0x5c ? 1 : 0;
  }
  const out = changetype<string>(__new((size + extra) << 1, idof<string>()));
  let to = unit(changetype<usize>(out), 0x22);
  for (let i: usize = 0; i < size; i++) {
    const c = load<u16>(from + (i << 1));
    if (c < 0x20) {
      to = unit(unit(unit(unit(unit(to, 0x5c), 0x75), 0x30), 0x30), 0x30 + (c >> 4));
      to = unit(to, (c & 15) < 10 ? 0x30 + (c & 15) : 0x61 - 10 + (c & 15));
      continue;
    }
    if (c == 0x22 || c == 0x5c) to = unit(to, 0x5c);
    to = unit(to, c);
  }
  unit(to, 0x22);
  return out;
}

function unit(to: usize, c: u16): usize {
  store<u16>(to, c);
  return to + 2;
}
