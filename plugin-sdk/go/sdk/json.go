package sluice

import (
	"iter"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Kind says what a JSON value is.
type Kind int

// The kinds of a [Value].
const (
	Absent Kind = iota
	Object
	Array
	String
	Number
	Bool
	Null
)

// Value is one JSON value, by its exact text: reading it makes no copy and rounds no number.
//
// The gateway has checked the text, so nothing here checks it again: what is no JSON is read as an absent member.
// The zero Value is absent, and so is what an absent one leads to.
type Value struct{ raw string }

// Parse makes a value of a JSON text.
func Parse(text string) Value { return Value{strings.Trim(text, " \t\r\n")} }

// Raw is the text as it was written: 2.50 stays 2.50. It is empty if the value is absent.
func (v Value) Raw() string { return v.raw }

// Kind says what the value is.
func (v Value) Kind() Kind {
	if v.raw == "" {
		return Absent
	}
	switch v.raw[0] {
	case '{':
		return Object
	case '[':
		return Array
	case '"':
		return String
	case 't', 'f':
		return Bool
	case 'n':
		return Null
	}
	return Number
}

// Text is a string without its quotes and escapes; false if it is no string.
func (v Value) Text() (string, bool) {
	if v.Kind() != String || len(v.raw) < 2 {
		return "", false
	}
	return unescaped(v.raw[1 : len(v.raw)-1]), true
}

// Bool is true or false; the second is false if the value is neither.
func (v Value) Bool() (value, ok bool) {
	return v.raw == "true", v.Kind() == Bool
}

// Int is a number with an integral value, however it was written: 2, 2.0 and 2e0 are all 2. It is false if the value
// is no number, not integral, or does not fit 64 bits. No float is involved.
func (v Value) Int() (int64, bool) {
	if v.Kind() != Number {
		return 0, false
	}
	return integral(v.raw)
}

// Get is a member of an object by its name; absent if there is none, or this is no object.
func (v Value) Get(name string) Value {
	if v.Kind() != Object {
		return Value{}
	}
	s := scan{text: v.raw}
	for s.more() {
		key := s.value()
		s.colon()
		value := s.value()
		if sameText(key, name) {
			return Value{value}
		}
	}
	return Value{}
}

// Members are the members of an object, in their sequence; none if this is no object.
func (v Value) Members() iter.Seq2[string, Value] {
	return func(yield func(string, Value) bool) {
		if v.Kind() != Object {
			return
		}
		s := scan{text: v.raw}
		for s.more() {
			key := s.value()
			s.colon()
			name, _ := Value{key}.Text()
			if !yield(name, Value{s.value()}) {
				return
			}
		}
	}
}

// Elements are the elements of an array with their positions; none if this is no array.
func (v Value) Elements() iter.Seq2[int, Value] {
	return func(yield func(int, Value) bool) {
		if v.Kind() != Array {
			return
		}
		s := scan{text: v.raw}
		for i := 0; s.more(); i++ {
			if !yield(i, Value{s.value()}) {
				return
			}
		}
	}
}

// Len is how many elements an array or members an object has.
func (v Value) Len() int {
	n := 0
	switch v.Kind() {
	case Array:
		for s := (scan{text: v.raw}); s.more(); n++ {
			s.value()
		}
	case Object:
		for s := (scan{text: v.raw}); s.more(); n++ {
			s.value()
			s.colon()
			s.value()
		}
	}
	return n
}

// Pointer is what a JSON Pointer (RFC 6901) leads to, such as /lines/0/quantity; absent if it leads nowhere.
func (v Value) Pointer(path string) Value {
	if path == "" {
		return v
	}
	if path[0] != '/' {
		return Value{}
	}
	for token := range strings.SplitSeq(path[1:], "/") {
		token = strings.ReplaceAll(strings.ReplaceAll(token, "~1", "/"), "~0", "~")
		if v.Kind() == Array {
			v = v.at(token)
		} else {
			v = v.Get(token)
		}
	}
	return v
}

func (v Value) at(token string) Value {
	if token == "" || len(token) > 9 || len(token) > 1 && token[0] == '0' {
		return Value{}
	}
	wanted := 0
	for i := range len(token) {
		if token[i] < '0' || token[i] > '9' {
			return Value{}
		}
		wanted = wanted*10 + int(token[i]-'0')
	}
	for i, element := range v.Elements() {
		if i == wanted {
			return element
		}
	}
	return Value{}
}

// scan walks over the parts of an object or array.
type scan struct {
	text string
	at   int
}

// more steps over the opening bracket or the comma; it is false at the closing bracket.
func (s *scan) more() bool {
	s.space()
	if s.closed() {
		return false
	}
	s.at++
	s.space()
	return !s.closed()
}

func (s *scan) closed() bool {
	return s.at >= len(s.text) || s.text[s.at] == ']' || s.text[s.at] == '}'
}

func (s *scan) colon() {
	s.space()
	if s.at < len(s.text) {
		s.at++
	}
	s.space()
}

func (s *scan) space() {
	for s.at < len(s.text) && s.text[s.at] <= ' ' {
		s.at++
	}
}

// value steps over one value and gives its text.
func (s *scan) value() string {
	start, depth, at, text := s.at, 0, s.at, s.text
loop:
	for at < len(text) {
		switch c := text[at]; c {
		case '"':
			at = endOfString(text, at)
			if depth == 0 {
				break loop
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth > 0 {
				depth--
				at++
			}
			if depth == 0 {
				break loop
			}
			continue
		case ',', ':', ' ', '\t', '\r', '\n':
			if depth == 0 {
				break loop
			}
		}
		at++
	}
	s.at = at
	return text[start:at]
}

func endOfString(text string, start int) int {
	for at := start + 1; at < len(text); at++ {
		switch text[at] {
		case '"':
			return at + 1
		case '\\':
			at++
		}
	}
	return len(text)
}

// sameText tells whether a string with its quotes and escapes says this.
func sameText(quoted, text string) bool {
	if len(quoted) < 2 {
		return false
	}
	inner := quoted[1 : len(quoted)-1]
	return inner == text || strings.IndexByte(inner, '\\') >= 0 && unescaped(inner) == text
}

func unescaped(text string) string {
	next := strings.IndexByte(text, '\\')
	if next < 0 {
		return text
	}
	out := make([]byte, 0, len(text))
	for next >= 0 && next+1 < len(text) {
		out = append(out, text[:next]...)
		escape := text[next+1]
		text = text[next+2:]
		switch escape {
		case 'n':
			out = append(out, '\n')
		case 't':
			out = append(out, '\t')
		case 'r':
			out = append(out, '\r')
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'u':
			letter := hex(text)
			text = text[min(4, len(text)):]
			if utf16.IsSurrogate(letter) {
				low := rune(utf8.RuneError)
				if strings.HasPrefix(text, `\u`) {
					low = hex(text[2:])
				}
				letter = utf16.DecodeRune(letter, low)
				if letter != utf8.RuneError {
					text = text[6:]
				}
			}
			out = utf8.AppendRune(out, letter)
		default:
			out = append(out, escape)
		}
		next = strings.IndexByte(text, '\\')
	}
	return string(append(out, text...))
}

func hex(text string) rune {
	if len(text) < 4 {
		return utf8.RuneError
	}
	var letter rune
	for i := range 4 {
		c := rune(text[i])
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		default:
			c = c | 0x20 - 'a' + 10
		}
		letter = letter<<4 | c
	}
	return letter
}
