/** UTF-8 by hand: QuickJS has neither TextDecoder nor TextEncoder, but two old functions that do it natively. */

declare function escape(text: string): string;
declare function unescape(text: string): string;

/** Arguments of one call; more would not fit the engine's stack. */
const CHUNK = 8192;
const BEYOND_ASCII = /[^\0-\x7f]/;

/** Throws a `URIError` where the bytes are not UTF-8. */
export function toText(bytes: Uint8Array): string {
  let latin = "";
  for (let start = 0; start < bytes.length; start += CHUNK) {
    latin += String.fromCharCode.apply(null, bytes.subarray(start, start + CHUNK) as unknown as number[]);
  }
  return BEYOND_ASCII.test(latin) ? decodeURIComponent(escape(latin)) : latin;
}

/** Lone surrogates become U+FFFD. */
export function toBytes(text: string): Uint8Array {
  const latin = BEYOND_ASCII.test(text) ? unescape(encodeURIComponent(text.toWellFormed())) : text;
  const bytes = new Uint8Array(latin.length);
  for (let here = 0; here < latin.length; here++) bytes[here] = latin.charCodeAt(here);
  return bytes;
}
