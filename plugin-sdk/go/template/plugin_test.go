package main

import (
	"testing"

	"sluice/sluicetest"
)

func TestTheLinesAreCounted(t *testing.T) {
	outcome := sluicetest.Judge(t, configure, `{"lines_max":2}`, `{"lines":[1,2]}`)
	if outcome.Verdict != "enrich" || string(outcome.Patch[0].Value) != "2" {
		t.Errorf("it answers %s", outcome.Raw)
	}
}

func TestOneLineTooManyIsRefused(t *testing.T) {
	outcome := sluicetest.Judge(t, configure, `{"lines_max":2}`, `{"lines":[1,2,3]}`)
	if outcome.Verdict != "reject" || outcome.Problems[0].Code != "too-many-lines" {
		t.Errorf("it answers %s", outcome.Raw)
	}
}

func TestALimitThatIsNoNumberIsRefused(t *testing.T) {
	problems := sluicetest.Refused(t, configure, `{"lines_max":"many"}`)
	if len(problems) != 1 || problems[0].Pointer != "/lines_max" {
		t.Errorf("the problems are %v", problems)
	}
}
