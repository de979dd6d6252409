package sluice

import (
	"bytes"
	"encoding/json"
	"time"
)

// Verdict is what becomes of an order. It is made by [Accept], [Enrich], [Reject], [RetryLater] or [Fault].
// The zero Verdict accepts.
type Verdict struct {
	kind      string
	ops       []Op
	problems  []Problem
	afterMs   uint32
	code      string
	reason    string
	retryable bool
}

// Problem is one finding about an order, or about the plugin's configuration.
type Problem struct {
	// Code is a stable word for programs, such as quantity-not-positive.
	Code string
	// Title is a short text for people, the same for each order.
	Title string
	// Detail says what is wrong with this one. It may be empty.
	Detail string
	// Pointer is the JSON Pointer (RFC 6901) to the member at fault. It may be empty.
	Pointer string
}

// Op is one change of an order. It is made by [Set], [SetRaw], [Remove] or [Header].
type Op struct{ kind, target, value string }

// Accept lets the order pass as it is.
func Accept() Verdict { return Verdict{} }

// Enrich lets the order pass with these changes, applied in this sequence. All else keeps its bytes.
func Enrich(ops ...Op) Verdict {
	if len(ops) == 0 {
		return Accept()
	}
	return Verdict{kind: "enrich", ops: ops}
}

// Reject refuses the order for good. At least one problem.
func Reject(problems ...Problem) Verdict { return Verdict{kind: "reject", problems: problems} }

// RetryLater says "ask me again": the order is held and judged anew, not before this has passed. The client sees the
// reason.
func RetryLater(after time.Duration, reason string) Verdict {
	ms := min(max(after.Milliseconds(), 0), 1<<32-1)
	return Verdict{kind: "retry-later", afterMs: uint32(ms), reason: reason}
}

// Fault says that the plugin itself has failed. The order is held. Panics become faults by themselves.
func Fault(code, detail string, retryable bool) Verdict {
	return Verdict{kind: "fault", code: code, reason: detail, retryable: retryable}
}

// Set creates or replaces a member, or appends to an array with "-"; missing objects on the way are created.
// The value is anything that encoding/json can write; what it cannot is a panic, and so a fault.
func Set(pointer string, value any) Op {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		panic(err)
	}
	return SetRaw(pointer, text.String())
}

// SetRaw is Set with a value that is JSON already; its bytes are kept.
func SetRaw(pointer, json string) Op { return Op{"set", pointer, json} }

// Remove removes the member that the JSON Pointer leads to.
func Remove(pointer string) Op { return Op{"remove", pointer, ""} }

// Header gives the order's record a header.
func Header(name, value string) Op { return Op{"header", name, value} }
