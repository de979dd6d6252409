// Package sluicetest judges single orders in native tests, without a gateway.
package sluicetest

import (
	"encoding/json"
	"testing"

	"sluice"
)

// Outcome is what the gateway gets for one order.
type Outcome struct {
	Verdict  string
	Patch    []Op
	Problems []Problem
	AfterMs  uint32
	Reason   string
	Code     string
	Detail   string
	// Raw is the outcome's exact text.
	Raw string `json:"-"`
}

// Op is one change: Set with Value, Remove, or Header with Value.
type Op struct {
	Set    string
	Remove string
	Header string
	Value  json.RawMessage
}

// Problem is one finding.
type Problem struct{ Code, Title, Detail, Pointer string }

// Pointers are the pointers of the problems.
func (o Outcome) Pointers() []string {
	var pointers []string
	for _, problem := range o.Problems {
		pointers = append(pointers, problem.Pointer)
	}
	return pointers
}

// Judge configures a plugin and lets it judge one order; both are JSON objects.
func Judge(t testing.TB, configure sluice.Configure, config, order string) Outcome {
	t.Helper()
	answer := ask(t, configure, config, order)
	if answer.Refused != nil {
		t.Fatalf("the plugin refuses its configuration: %v", answer.Refused)
	}
	var outcome Outcome
	if err := json.Unmarshal(answer.Outcomes[0], &outcome); err != nil {
		t.Fatal(err)
	}
	outcome.Raw = string(answer.Outcomes[0])
	return outcome
}

// Refused gives the problems of a configuration; none if it is accepted.
func Refused(t testing.TB, configure sluice.Configure, config string) []Problem {
	t.Helper()
	return ask(t, configure, config, `{}`).Refused
}

type answer struct {
	Outcomes []json.RawMessage
	Refused  []Problem
}

func ask(t testing.TB, configure sluice.Configure, config, order string) answer {
	t.Helper()
	for _, text := range []string{config, order} {
		if !json.Valid([]byte(text)) {
			t.Fatalf("this is no JSON: %s", text)
		}
	}
	document := `{"abi":1,"config":` + config + `,"events":[{"seq":0,"id":"an-order","route":"/orders",` +
		`"kind":"OrderCreated","received":"2026-01-02T03:04:05.678Z","attempt":1,"attrs":{},"order":` + order + `}]}`
	var parsed answer
	raw := sluice.Answer(configure, document)
	if err := json.Unmarshal(raw, &parsed); err != nil {
		t.Fatalf("%v in %s", err, raw)
	}
	return parsed
}
