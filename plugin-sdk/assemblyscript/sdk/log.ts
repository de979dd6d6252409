// The gateway's log. Long lines are cut, too many are dropped.

@external("sluice", "log")
declare function write(level: i32, line: usize, size: i32): void;

function line(level: i32, text: string): void {
  const bytes = heap.alloc(<usize>text.length * 3);
  const from = changetype<usize>(text);
  const size = String.UTF8.encodeUnsafe(from, text.length, bytes, false, String.UTF8.ErrorMode.REPLACE);
  write(level, bytes, <i32>size);
  heap.free(bytes);
}

export namespace log {
  export function debug(text: string): void {
    line(0, text);
  }
  export function info(text: string): void {
    line(1, text);
  }
  export function warn(text: string): void {
    line(2, text);
  }
  export function error(text: string): void {
    line(3, text);
  }
}
