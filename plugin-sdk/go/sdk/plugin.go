package sluice

import "unicode/utf8"

// Plugin judges orders. What it keeps between two orders may be gone: an instance lives for one batch.
type Plugin interface {
	Judge(order *Order) Verdict
}

// Order is an order and what is known about it.
type Order struct {
	// ID of the order.
	ID string
	// Route is the path of the order's route, such as /orders.
	Route string
	// Kind is the type of the event, such as OrderCreated.
	Kind string
	// Received is when the order was accepted, RFC 3339 UTC with milliseconds: the only clock a plugin sees.
	Received string
	// Attempt counts the judgements of this order, from 1.
	Attempt int
	// Attrs has more names and values, such as traceparent: an object with strings.
	Attrs Value
	// Body is the order: a JSON object, as patched by the plugins before this one.
	Body Value
}

// Attr is the value of one of the Attrs; empty if it is absent.
func (o *Order) Attr(name string) string {
	text, _ := o.Attrs.Get(name).Text()
	return text
}

// Configure makes a plugin of the operator's configuration, a JSON object. An error refuses the plugin: that of
// [Refuse] with its problems, any other as the detail of one.
type Configure func(config Value) (Plugin, error)

type refusal []Problem

func (r refusal) Error() string { return "the configuration is refused" }

// Refuse is the error for a configuration with these problems.
func Refuse(problems ...Problem) error { return refusal(problems) }

var configure Configure

// Serve says how this module's plugin is made. To be called once, in an init.
func Serve(how Configure) { configure = how }

// Answer judges a document of the gateway's and gives back the document that answers it.
func Answer(configure Configure, document string) []byte {
	var config Value
	// The document is walked through once, with the events as its last member.
	s := scan{text: document}
	for s.more() {
		name := s.value()
		s.colon()
		if sameText(name, "events") {
			break
		}
		if value := s.value(); sameText(name, "config") {
			config = Value{value}
		}
	}
	out := make([]byte, 0, 4096)
	plugin, err := configured(configure, config)
	if err != nil {
		problems, ok := err.(refusal)
		if !ok || len(problems) == 0 {
			problems = refusal{{Code: "invalid-configuration", Title: "Invalid configuration", Detail: err.Error()}}
		}
		return append(appendProblems(append(out, `{"refused":`...), problems), '}')
	}
	out = append(out, `{"outcomes":[`...)
	for i := 0; s.more(); i++ {
		if i > 0 {
			out = append(out, ',')
		}
		seq, order := read(&s)
		out = appendOutcome(out, seq, judged(plugin, &order))
	}
	return append(out, `]}`...)
}

func configured(configure Configure, config Value) (plugin Plugin, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = Refuse(Problem{Code: "panic", Title: "The plugin has panicked", Detail: told(cause)})
		}
	}()
	if configure == nil {
		panic("no plugin: call sluice.Serve in an init")
	}
	return configure(config)
}

func judged(plugin Plugin, order *Order) (verdict Verdict) {
	defer func() {
		if cause := recover(); cause != nil {
			Error("panic: " + told(cause))
			verdict = Fault("panic", told(cause), false)
		}
	}()
	return plugin.Judge(order)
}

func told(cause any) string {
	switch cause := cause.(type) {
	case error:
		return cause.Error()
	case string:
		return cause
	case interface{ String() string }:
		return cause.String()
	}
	return "a value that is no text"
}

// read takes one event.
func read(s *scan) (seq string, order Order) {
	order.Attempt = 1
	for s.more() {
		name := s.value()
		s.colon()
		part := Value{s.value()}
		switch name {
		case `"seq"`:
			seq = part.raw
		case `"id"`:
			order.ID, _ = part.Text()
		case `"route"`:
			order.Route, _ = part.Text()
		case `"kind"`:
			order.Kind, _ = part.Text()
		case `"received"`:
			order.Received, _ = part.Text()
		case `"attempt"`:
			attempt, _ := part.Int()
			order.Attempt = int(attempt)
		case `"attrs"`:
			order.Attrs = part
		case `"order"`:
			order.Body = part
		}
	}
	s.at++ // the brace
	return seq, order
}

// Debug writes a line to the gateway's log. Long lines are cut, too many are dropped.
func Debug(line string) { write(0, line) }

// Info writes a line to the gateway's log.
func Info(line string) { write(1, line) }

// Warn writes a line to the gateway's log.
func Warn(line string) { write(2, line) }

// Error writes a line to the gateway's log.
func Error(line string) { write(3, line) }

func appendRune(out []byte, c rune) []byte { return utf8.AppendRune(out, c) }
