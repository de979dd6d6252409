package sluice

import "strconv"

func appendOutcome(out []byte, seq string, v Verdict) []byte {
	out = append(append(out, `{"seq":`...), seq...)
	switch v.kind {
	case "enrich":
		out = append(out, `,"verdict":"enrich","patch":[`...)
		for i, op := range v.ops {
			if i > 0 {
				out = append(out, ',')
			}
			out = appendOp(out, op)
		}
		out = append(out, ']')
	case "reject":
		out = appendProblems(append(out, `,"verdict":"reject","problems":`...), v.problems)
	case "retry-later":
		out = append(out, `,"verdict":"retry-later","afterMs":`...)
		out = strconv.AppendUint(out, uint64(v.afterMs), 10)
		out = appendMember(out, "reason", v.reason)
	case "fault":
		out = append(out, `,"verdict":"fault"`...)
		out = appendMember(out, "code", v.code)
		out = appendMember(out, "detail", v.reason)
		out = strconv.AppendBool(append(out, `,"retryable":`...), v.retryable)
	default:
		out = append(out, `,"verdict":"accept"`...)
	}
	return append(out, '}')
}

func appendOp(out []byte, op Op) []byte {
	out = AppendQuoted(append(append(append(out, `{"`...), op.kind...), `":`...), op.target)
	switch op.kind {
	case "set":
		out = append(append(out, `,"value":`...), op.value...)
	case "header":
		out = appendMember(out, "value", op.value)
	}
	return append(out, '}')
}

func appendProblems(out []byte, problems []Problem) []byte {
	out = append(out, '[')
	for i, problem := range problems {
		if i > 0 {
			out = append(out, ',')
		}
		out = AppendQuoted(append(out, `{"code":`...), problem.Code)
		out = appendMember(out, "title", problem.Title)
		if problem.Detail != "" {
			out = appendMember(out, "detail", problem.Detail)
		}
		if problem.Pointer != "" {
			out = appendMember(out, "pointer", problem.Pointer)
		}
		out = append(out, '}')
	}
	return append(out, ']')
}

func appendMember(out []byte, name, text string) []byte {
	return AppendQuoted(append(append(append(out, `,"`...), name...), `":`...), text)
}

// AppendQuoted appends a text as a JSON string: escapes for quotes, backslashes and control characters, all else as
// it is; what is not UTF-8 becomes the replacement character.
func AppendQuoted(out []byte, text string) []byte {
	const digits = "0123456789abcdef"
	out = append(out, '"')
	for _, c := range text {
		switch {
		case c == '"' || c == '\\':
			out = append(out, '\\', byte(c))
		case c < ' ':
			out = append(out, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		default:
			out = appendRune(out, c)
		}
	}
	return append(out, '"')
}
