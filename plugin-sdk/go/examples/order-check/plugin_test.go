package main

import (
	"slices"
	"strings"
	"testing"

	"sluice/sluicetest"
)

func TestAnOrderGetsItsTotalsAndItsCustomersSegmentInExactlyTheseBytes(t *testing.T) {
	order := `{"customerId":"17850","lines":[{"quantity":6,"unitPrice":"2.55"},{"quantity":2.0,"unitPrice":"0.10"}]}`
	outcome := sluicetest.Judge(t, configure, `{"segments":{"17850":"whole\u0001\"sale"}}`, order)
	want := `{"seq":0,"verdict":"enrich","patch":[{"set":"/totals","value":{"net":"15.50","units":8,"lines":2}},` +
		`{"set":"/segment","value":"whole\u0001\"sale"},{"header":"order-net","value":"15.50"}]}`
	if outcome.Raw != want {
		t.Errorf("it answers %s", outcome.Raw)
	}
}

func TestEachFindingIsAProblemWithItsPointer(t *testing.T) {
	order := `{"lines":[{"quantity":1.5,"unitPrice":"1"},7,{"quantity":"3","unitPrice":"0.00"}]}`
	outcome := sluicetest.Judge(t, configure, `{}`, order)
	want := []string{"/customerId", "/lines/0/quantity", "/lines/1", "/lines/2/quantity", "/lines/2/unitPrice"}
	if outcome.Verdict != "reject" || !slices.Equal(outcome.Pointers(), want) {
		t.Errorf("it answers %s", outcome.Raw)
	}
}

func TestTheLargestOrderThatIsRightHasAnExactTotal(t *testing.T) {
	lines := strings.Repeat(`{"quantity":1e5,"unitPrice":"9999999.9999"},`, linesMax)
	order := `{"customerId":"x","lines":[` + strings.TrimSuffix(lines, ",") + `]}`
	outcome := sluicetest.Judge(t, configure, `{}`, order)
	if outcome.Verdict != "enrich" || !strings.Contains(string(outcome.Patch[0].Value), `"499999999995000.00"`) {
		t.Errorf("it answers %s", outcome.Raw)
	}
}

func TestAConfigurationThatIsNotUnderstoodIsRefused(t *testing.T) {
	for _, config := range []string{`{"x":1}`, `{"segments":[]}`, `{"segments":{"a":1}}`, `{"segments":null}`} {
		problems := sluicetest.Refused(t, configure, config)
		want := []sluicetest.Problem{{Code: "invalid-configuration", Title: "Invalid configuration"}}
		if !slices.Equal(problems, want) {
			t.Errorf("%s: the problems are %v", config, problems)
		}
	}
}
