// Refuses orders with too many lines and counts the lines of the others.
package main

import (
	"strconv"

	"sluice"
)

type lineLimit struct{ linesMax int64 }

func init() { sluice.Serve(configure) }

func main() {}

// configure is called once, before all else. Keep it cheap: an instance lives for one batch of orders.
func configure(config sluice.Value) (sluice.Plugin, error) {
	member := config.Get("lines_max")
	if member.Kind() == sluice.Absent {
		return lineLimit{100}, nil
	}
	linesMax, ok := member.Int()
	if !ok || linesMax < 0 {
		return nil, sluice.Refuse(sluice.Problem{
			Code:    "invalid-configuration",
			Title:   "Invalid configuration",
			Detail:  "lines_max is not a whole number from 0",
			Pointer: "/lines_max",
		})
	}
	return lineLimit{linesMax}, nil
}

// Judge judges one order. A panic becomes a fault: the order is held, and nothing is lost.
func (p lineLimit) Judge(order *sluice.Order) sluice.Verdict {
	lines := order.Body.Get("lines")
	if lines.Kind() != sluice.Array {
		return sluice.Reject(sluice.Problem{Code: "lines-missing", Title: "The order has no lines", Pointer: "/lines"})
	}
	count := lines.Len()
	if int64(count) > p.linesMax {
		sluice.Info("order " + order.ID + " has " + strconv.Itoa(count) + " lines")
		return sluice.Reject(sluice.Problem{
			Code:    "too-many-lines",
			Title:   "The order has too many lines",
			Detail:  strconv.Itoa(count) + " lines, at most " + strconv.FormatInt(p.linesMax, 10) + " are allowed",
			Pointer: "/lines",
		})
	}
	return sluice.Enrich(sluice.Set("/lineCount", count))
}
