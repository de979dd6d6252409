package sluice

import (
	"encoding/json"
	"math"
	"testing"
)

func TestNumbersAreIntegersByTheirValueAndNotByTheirForm(t *testing.T) {
	for text, want := range map[string]int64{
		"2": 2, "2.0": 2, "2e0": 2, "20e-1": 2, "0.00002E+5": 2, "1e5": 100000, "-7.00": -7, "-0": 0,
		"0e999999999999": 0, "1000000000000000000000000000e-25": 100,
		"9223372036854775807": math.MaxInt64, "-9223372036854775808": math.MinInt64,
	} {
		if got, ok := Parse(text).Int(); !ok || got != want {
			t.Errorf("%s is %d, %v", text, got, ok)
		}
	}
	for _, text := range []string{
		"1.5", "1e-400", "1e400", "1.0000000000000000000001", "9223372036854775808", "-9223372036854775809",
		"18446744073709551616", "100000000000000000000000000000.5", `"2"`, "null",
	} {
		if got, ok := Parse(text).Int(); ok {
			t.Errorf("%s is %d", text, got)
		}
	}
}

func TestMembersAreFoundByPointerWithTheirBytes(t *testing.T) {
	order := Parse(` {"a" : {"b/c":[10, 1.50 ,{"~":null}], "\u0064":"x"},"n":123456789012345678901234567890, "e":{}, "f":[ ]}`)
	for path, want := range map[string]string{
		"/a/b~1c/0": "10", "/a/b~1c/1": "1.50", "/a/b~1c/2/~0": "null", "/a/d": `"x"`, "/e": "{}",
		"/n": "123456789012345678901234567890",
		"/x": "", "/a/b": "", "/a/b~1c/3": "", "/a/b~1c/01": "", "/a/b~1c/-": "", "/n/0": "", "a": "", "/f/0": "",
	} {
		if got := order.Pointer(path).Raw(); got != want {
			t.Errorf("%s is %q", path, got)
		}
	}
	if order.Len() != 4 || order.Get("f").Len() != 0 {
		t.Errorf("there are %d members, %d elements", order.Len(), order.Get("f").Len())
	}
}

func FuzzTextsAreReadAndWrittenAsTheStandardLibraryDoes(f *testing.F) {
	f.Add(`"\u00e9\ud83d\ude00\n\"\\\/é"`)
	f.Add(`"\ud83d x \udc00\ud83d\u0041"`)
	f.Fuzz(func(t *testing.T, text string) {
		var want string
		if json.Unmarshal([]byte(text), &want) != nil {
			return
		}
		got, ok := Parse(text).Text()
		// The gateway's documents are UTF-8; the standard library mends what is none.
		got = string([]rune(got))
		if Parse(text).Kind() == String && (!ok || got != want) {
			t.Errorf("%s is %q and not %q", text, got, want)
		}
		var again string
		if err := json.Unmarshal(AppendQuoted(nil, want), &again); err != nil || again != want {
			t.Errorf("%q is written as %s", want, AppendQuoted(nil, want))
		}
	})
}

type panicking struct{}

func (panicking) Judge(*Order) Verdict {
	var none []int
	return Verdict{afterMs: uint32(none[1])}
}

func TestAPanicIsTheFaultOfItsOrderAlone(t *testing.T) {
	answer := Answer(func(Value) (Plugin, error) { return panicking{}, nil }, `{"config":{},"events":[{"seq":7},{"seq":8}]}`)
	fault := `"verdict":"fault","code":"panic","detail":"runtime error: index out of range [1] with length 0","retryable":false}`
	if want := `{"outcomes":[{"seq":7,` + fault + `,{"seq":8,` + fault + `]}`; string(answer) != want {
		t.Errorf("it answers %s", answer)
	}
}
