// Package sluice is for plugins of Sluice in Go.
//
// A plugin is a package main that says in its init which function configures it:
//
//	type limit struct{ lines int }
//
//	func configure(config sluice.Value) (sluice.Plugin, error) {
//		lines, ok := config.Get("lines_max").Int()
//		if !ok {
//			return nil, errors.New("lines_max is not a whole number")
//		}
//		return limit{int(lines)}, nil
//	}
//
//	func (l limit) Judge(order *sluice.Order) sluice.Verdict {
//		if order.Body.Get("lines").Len() > l.lines {
//			return sluice.Reject(sluice.Problem{Code: "too-many-lines", Title: "The order has too many lines"})
//		}
//		return sluice.Accept()
//	}
//
//	func init() { sluice.Serve(configure) }
//
//	func main() {}
package sluice
