/* Reads JSON by its exact text. */
#include "sluice.h"

#define REPLACEMENT 0xfffdu

static bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool sluice_same(sluice_text one, sluice_text other) {
  if (one.size != other.size) return false;
  for (size_t i = 0; i < one.size; i++)
    if (one.bytes[i] != other.bytes[i]) return false;
  return true;
}

sluice_value sluice_json(sluice_text text) {
  while (text.size > 0 && is_space(text.bytes[0])) text.bytes++, text.size--;
  while (text.size > 0 && is_space(text.bytes[text.size - 1])) text.size--;
  return (sluice_value){text};
}

sluice_kind sluice_kind_of(sluice_value value) {
  if (value.raw.size == 0) return SLUICE_ABSENT;
  switch (value.raw.bytes[0]) {
    case '{': return SLUICE_OBJECT;
    case '[': return SLUICE_ARRAY;
    case '"': return SLUICE_STRING;
    case 't':
    case 'f': return SLUICE_BOOL;
    case 'n': return SLUICE_NULL;
    default: return SLUICE_NUMBER;
  }
}

bool sluice_is_true(sluice_value value) { return value.raw.size > 0 && value.raw.bytes[0] == 't'; }

/* The walk ---------------------------------------------------------------------------------------------------------- */

static size_t end_of_string(sluice_text text, size_t at) {
  for (at++; at < text.size; at++) {
    if (text.bytes[at] == '"') return at + 1;
    if (text.bytes[at] == '\\') at++;
  }
  return text.size;
}

/* How long the value is with which the text begins. */
static size_t value_size(sluice_text text) {
  size_t depth = 0, at = 0;
  while (at < text.size) {
    char c = text.bytes[at];
    if (c == '"') {
      at = end_of_string(text, at);
      if (depth == 0) return at;
      continue;
    }
    if (c == '{' || c == '[') {
      depth++;
    } else if (c == '}' || c == ']') {
      if (depth == 0) return at;
      if (--depth == 0) return at + 1;
    } else if (depth == 0 && (c == ',' || c == ':' || is_space(c))) {
      return at;
    }
    at++;
  }
  return at;
}

static void step(sluice_text *rest, size_t size) {
  rest->bytes += size;
  rest->size -= size;
}

static void skip_space(sluice_text *rest) {
  while (rest->size > 0 && is_space(rest->bytes[0])) step(rest, 1);
}

static sluice_value take_value(sluice_text *rest) {
  sluice_value value = {{rest->bytes, value_size(*rest)}};
  step(rest, value.raw.size);
  skip_space(rest);
  return value;
}

sluice_walk sluice_over(sluice_value value) {
  sluice_kind kind = sluice_kind_of(value);
  sluice_walk walk = {.index = SIZE_MAX};
  if (kind == SLUICE_OBJECT || kind == SLUICE_ARRAY) walk.rest = value.raw;
  return walk;
}

bool sluice_next(sluice_walk *walk) {
  if (walk->rest.size == 0) return false;
  /* The bracket before the first one says what it is; later there is a comma. */
  bool object = walk->index == SIZE_MAX ? walk->rest.bytes[0] == '{' : walk->name.raw.size > 0;
  step(&walk->rest, 1);
  skip_space(&walk->rest);
  if (walk->rest.size == 0 || walk->rest.bytes[0] == ']' || walk->rest.bytes[0] == '}') {
    walk->rest.size = 0;
    return false;
  }
  walk->index = walk->index == SIZE_MAX ? 0 : walk->index + 1;
  if (object) {
    walk->name = take_value(&walk->rest);
    if (walk->rest.size > 0) step(&walk->rest, 1);
    skip_space(&walk->rest);
  }
  walk->value = take_value(&walk->rest);
  return true;
}

size_t sluice_count(sluice_value value) {
  size_t count = 0;
  sluice_walk walk = sluice_over(value);
  while (sluice_next(&walk)) count++;
  return count;
}

sluice_value sluice_get(sluice_value object, sluice_text name) {
  if (sluice_kind_of(object) == SLUICE_OBJECT) {
    sluice_walk walk = sluice_over(object);
    while (sluice_next(&walk))
      if (sluice_is(walk.name, name)) return walk.value;
  }
  return (sluice_value){{0}};
}

/* Strings ----------------------------------------------------------------------------------------------------------- */

static uint32_t hex(sluice_text *text) {
  uint32_t code = 0;
  if (text->size < 4) return REPLACEMENT;
  for (size_t i = 0; i < 4; i++) {
    char c = text->bytes[i];
    code = code << 4 | (uint32_t)(is_digit(c) ? c - '0' : (c | 0x20) - 'a' + 10);
  }
  step(text, 4);
  return code;
}

/* The character of a \u escape, of both halves of a pair. */
static uint32_t escaped(sluice_text *text) {
  uint32_t high = hex(text);
  if (high < 0xd800 || high > 0xdfff) return high;
  sluice_text behind = *text;
  if (high < 0xdc00 && behind.size >= 6 && behind.bytes[0] == '\\' && behind.bytes[1] == 'u') {
    step(&behind, 2);
    uint32_t low = hex(&behind);
    if (low >= 0xdc00 && low <= 0xdfff) {
      *text = behind;
      return 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
    }
  }
  return REPLACEMENT;
}

static size_t utf8(uint32_t code, char out[4]) {
  if (code < 0x80) {
    out[0] = (char)code;
    return 1;
  }
  if (code < 0x800) {
    out[0] = (char)(0xc0 | code >> 6);
    out[1] = (char)(0x80 | (code & 63));
    return 2;
  }
  if (code < 0x10000) {
    out[0] = (char)(0xe0 | code >> 12);
    out[1] = (char)(0x80 | (code >> 6 & 63));
    out[2] = (char)(0x80 | (code & 63));
    return 3;
  }
  out[0] = (char)(0xf0 | code >> 18);
  out[1] = (char)(0x80 | (code >> 12 & 63));
  out[2] = (char)(0x80 | (code >> 6 & 63));
  out[3] = (char)(0x80 | (code & 63));
  return 4;
}

/* The next character of a string, in UTF-8. */
static size_t letter(sluice_text *text, char out[4]) {
  char c = text->bytes[0];
  step(text, 1);
  if (c != '\\' || text->size == 0) {
    out[0] = c;
    return 1;
  }
  char escape = text->bytes[0];
  step(text, 1);
  switch (escape) {
    case 'u': return utf8(escaped(text), out);
    case 'n': out[0] = '\n'; break;
    case 't': out[0] = '\t'; break;
    case 'r': out[0] = '\r'; break;
    case 'b': out[0] = '\b'; break;
    case 'f': out[0] = '\f'; break;
    default: out[0] = escape;
  }
  return 1;
}

static bool has_escapes(sluice_text text) {
  for (size_t i = 0; i < text.size; i++)
    if (text.bytes[i] == '\\') return true;
  return false;
}

static bool inner(sluice_value value, sluice_text *text) {
  if (sluice_kind_of(value) != SLUICE_STRING || value.raw.size < 2) return false;
  *text = (sluice_text){value.raw.bytes + 1, value.raw.size - 2};
  return true;
}

bool sluice_string(sluice_value value, sluice_text *text) {
  if (!inner(value, text)) return false;
  if (!has_escapes(*text)) return true;
  /* An escape is never shorter than what it stands for. */
  char *bytes = sluice_take(text->size), out[4];
  size_t size = 0;
  for (sluice_text rest = *text; rest.size > 0;) {
    size_t n = letter(&rest, out);
    for (size_t i = 0; i < n; i++) bytes[size++] = out[i];
  }
  *text = (sluice_text){bytes, size};
  return true;
}

bool sluice_is(sluice_value value, sluice_text text) {
  sluice_text own;
  if (!inner(value, &own)) return false;
  if (!has_escapes(own)) return sluice_same(own, text);
  char out[4];
  while (own.size > 0) {
    size_t n = letter(&own, out);
    if (n > text.size || !sluice_same((sluice_text){out, n}, (sluice_text){text.bytes, n})) return false;
    step(&text, n);
  }
  return text.size == 0;
}

/* Pointers ---------------------------------------------------------------------------------------------------------- */

static bool position(sluice_text token, size_t *index) {
  if (token.size == 0 || token.size > 9 || (token.size > 1 && token.bytes[0] == '0')) return false;
  *index = 0;
  for (size_t i = 0; i < token.size; i++) {
    if (!is_digit(token.bytes[i])) return false;
    *index = *index * 10 + (size_t)(token.bytes[i] - '0');
  }
  return true;
}

static sluice_value child(sluice_value value, sluice_text token) {
  if (sluice_kind_of(value) != SLUICE_ARRAY) return sluice_get(value, token);
  size_t index;
  if (!position(token, &index)) return (sluice_value){{0}};
  sluice_walk walk = sluice_over(value);
  while (sluice_next(&walk))
    if (walk.index == index) return walk.value;
  return (sluice_value){{0}};
}

sluice_value sluice_pointer(sluice_value value, sluice_text path) {
  while (path.size > 0) {
    if (path.bytes[0] != '/') return (sluice_value){{0}};
    step(&path, 1);
    char *token = sluice_take(path.size + 1);
    size_t size = 0;
    while (path.size > 0 && path.bytes[0] != '/') {
      token[size] = path.bytes[0];
      if (path.bytes[0] == '~' && path.size > 1) {
        token[size] = path.bytes[1] == '1' ? '/' : '~';
        step(&path, 1);
      }
      size++;
      step(&path, 1);
    }
    value = child(value, (sluice_text){token, size});
  }
  return value;
}

/* Numbers ----------------------------------------------------------------------------------------------------------- */

static int64_t power(sluice_text text) {
  const int64_t far = 1000000000;
  int64_t value = 0;
  for (size_t i = 0; i < text.size; i++)
    if (is_digit(text.bytes[i]) && value < far) value = value * 10 + (text.bytes[i] - '0');
  return text.size > 0 && text.bytes[0] == '-' ? -value : value;
}

static bool tenfold(uint64_t *value) {
  if (*value > UINT64_MAX / 10) return false;
  *value *= 10;
  return true;
}

bool sluice_integer(sluice_value value, int64_t *number) {
  if (sluice_kind_of(value) != SLUICE_NUMBER) return false;
  /* The digits from the first to the last that is not zero, and how many zeros come after it. */
  uint64_t significant = 0;
  int64_t zeros = 0, exponent = 0;
  bool after_point = false, fits = true;
  for (size_t i = 0; i < value.raw.size; i++) {
    char c = value.raw.bytes[i];
    if (c == '.') after_point = true;
    if (c == 'e' || c == 'E') {
      exponent += power((sluice_text){value.raw.bytes + i + 1, value.raw.size - i - 1});
      break;
    }
    if (!is_digit(c)) continue;
    if (after_point) exponent--;
    zeros++;
    if (c == '0') continue;
    for (; zeros > 0 && fits; zeros--) fits = tenfold(&significant);
    zeros = 0;
    uint64_t digit = (uint64_t)(c - '0');
    fits = fits && significant <= UINT64_MAX - digit;
    if (fits) significant += digit;
  }
  if (!fits) return false;
  exponent = significant == 0 ? 0 : exponent + zeros;
  if (exponent < 0) return false;
  for (; exponent > 0; exponent--)
    if (!tenfold(&significant)) return false;
  bool negative = value.raw.bytes[0] == '-';
  if (significant > (uint64_t)INT64_MAX + (negative ? 1 : 0)) return false;
  *number = negative && significant > 0 ? -(int64_t)(significant - 1) - 1 : (int64_t)significant;
  return true;
}
