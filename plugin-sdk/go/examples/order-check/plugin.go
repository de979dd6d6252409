// Checks orders and works out their totals, exactly: amounts are ten-thousandths in 64 bits.
package main

import (
	"strconv"
	"strings"

	"sluice"
)

const (
	linesMax    = 500
	quantityMax = 100_000
	problemsMax = 100
)

type orderCheck struct{ segments map[string]string }

func init() { sluice.Serve(configure) }

func main() {}

func configure(config sluice.Value) (sluice.Plugin, error) {
	invalid := sluice.Refuse(sluice.Problem{Code: "invalid-configuration", Title: "Invalid configuration"})
	if config.Kind() != sluice.Object {
		return nil, invalid
	}
	segments := map[string]string{}
	for name, member := range config.Members() {
		if name != "segments" || member.Kind() != sluice.Object {
			return nil, invalid
		}
		for customer, segment := range member.Members() {
			text, ok := segment.Text()
			if !ok {
				return nil, invalid
			}
			segments[customer] = text
		}
	}
	return orderCheck{segments}, nil
}

func (p orderCheck) Judge(order *sluice.Order) sluice.Verdict {
	var problems []sluice.Problem
	note := func(code, title, pointer string) {
		if len(problems) < problemsMax {
			problems = append(problems, sluice.Problem{Code: code, Title: title, Pointer: pointer})
		}
	}

	customer, _ := order.Body.Get("customerId").Text()
	if customer == "" {
		note("customer-id-missing", "The customer id is missing", "/customerId")
	}
	var net, units int64
	lines := order.Body.Get("lines")
	count := lines.Len()
	if lines.Kind() != sluice.Array || count < 1 || count > linesMax {
		note("lines-invalid", "The lines are not 1 to 500", "/lines")
	} else {
		for i, line := range lines.Elements() {
			at := "/lines/" + strconv.Itoa(i)
			if line.Kind() != sluice.Object {
				note("line-invalid", "The line is not an object", at)
				continue
			}
			quantity, ok := line.Get("quantity").Int()
			if !ok || quantity < 1 || quantity > quantityMax {
				note("quantity-invalid", "The quantity is not 1 to 100000", at+"/quantity")
				quantity = 0
			}
			text, _ := line.Get("unitPrice").Text()
			price, ok := unitPrice(text)
			if !ok {
				note("unit-price-invalid", "The unit price is not a decimal above zero", at+"/unitPrice")
			}
			net += price * quantity
			units += quantity
		}
	}
	if problems != nil {
		return sluice.Reject(problems...)
	}

	amount := decimal(net)
	totals := `{"net":"` + amount + `","units":` + strconv.FormatInt(units, 10) + `,"lines":` + strconv.Itoa(count) + `}`
	ops := []sluice.Op{sluice.SetRaw("/totals", totals)}
	if segment, ok := p.segments[customer]; ok {
		ops = append(ops, sluice.SetRaw("/segment", string(sluice.AppendQuoted(nil, segment))))
	}
	return sluice.Enrich(append(ops, sluice.Header("order-net", amount))...)
}

// unitPrice is a price in ten-thousandths.
func unitPrice(text string) (int64, bool) {
	whole, fraction, pointed := strings.Cut(text, ".")
	if !pointed {
		fraction = "0"
	}
	if len(whole) < 1 || len(whole) > 7 || len(fraction) < 1 || len(fraction) > 4 {
		return 0, false
	}
	digits := whole + fraction + "000"[:4-len(fraction)]
	var price int64
	for i := range len(digits) {
		if digits[i] < '0' || digits[i] > '9' {
			return 0, false
		}
		price = price*10 + int64(digits[i]-'0')
	}
	return price, price > 0
}

// decimal writes ten-thousandths with two decimals, and a third or fourth only where it is needed.
func decimal(amount int64) string {
	digits := strconv.FormatInt(amount%10_000+10_000, 10)[1:]
	return strconv.FormatInt(amount/10_000, 10) + "." + digits[:2] + strings.TrimRight(digits[2:], "0")
}
