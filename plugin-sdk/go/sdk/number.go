package sluice

import (
	"math"
	"math/bits"
)

// integral is the value of a number that has no fraction.
func integral(text string) (int64, bool) {
	var (
		// The digits from the first to the last that is not zero, and how many zeros come after it.
		significant uint64
		zeros       int
		tooLong     bool
		exponent    int
		afterPoint  bool
	)
	for i := range len(text) {
		c := text[i]
		if c == '.' {
			afterPoint = true
		}
		if c == 'e' || c == 'E' {
			exponent += power(text[i+1:])
			break
		}
		if c < '0' || c > '9' {
			continue
		}
		if afterPoint {
			exponent--
		}
		zeros++
		if c == '0' {
			continue
		}
		for ; zeros > 0 && !tooLong; zeros-- {
			significant, tooLong = tenfold(significant)
		}
		zeros = 0
		sum, carry := bits.Add64(significant, uint64(c-'0'), 0)
		significant, tooLong = sum, tooLong || carry != 0
	}
	if tooLong {
		return 0, false
	}
	if significant == 0 {
		return 0, true
	}
	exponent += zeros
	if exponent < 0 {
		return 0, false
	}
	for ; exponent > 0; exponent-- {
		if significant, tooLong = tenfold(significant); tooLong {
			return 0, false
		}
	}
	if text[0] == '-' {
		return -int64(significant), significant <= -math.MinInt64
	}
	return int64(significant), significant <= math.MaxInt64
}

func tenfold(value uint64) (product uint64, tooLong bool) {
	high, low := bits.Mul64(value, 10)
	return low, high != 0
}

func power(text string) int {
	const far = 1_000_000_000
	value := 0
	for i := range len(text) {
		if '0' <= text[i] && text[i] <= '9' {
			value = min(value*10+int(text[i]-'0'), far)
		}
	}
	if text != "" && text[0] == '-' {
		return -value
	}
	return value
}
