package setkey

import (
	"maps"
	"slices"
	"strings"

	"kipsec/ipsec/alg"
	"kipsec/ipsec/polstr"
)

// Finished says whether a text that is typed line by line needs no further line: it is blank, or ends with a semicolon
// that is in no comment and in no quotes.
func Finished(text string) bool {
	last, quote := byte(';'), false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			quote = !quote
			last = c
		case c == '#' && !quote:
			if end := strings.IndexByte(text[i:], '\n'); end >= 0 {
				i += end
			} else {
				i = len(text)
			}
		case !quote && strings.IndexByte(" \t\r\n", c) >= 0:
		default:
			last = c
		}
	}
	return !quote && last == ';'
}

// Complete returns the last word of a text, as far as it is typed, and which words it could become, in order. It knows
// the words of the language, but no addresses and no keys.
func Complete(text string) (partial string, candidates []string) {
	text = text[lastCommand(text):]
	words := strings.Fields(text)
	if len(words) > 0 && !strings.HasSuffix(text, words[len(words)-1]) {
		words = append(words, "")
	}
	if len(words) == 0 {
		words = []string{""}
	}
	partial = words[len(words)-1]
	if len(words) == 1 {
		return partial, matching(partial, verbWords())
	}
	v := verbByWord(words[0])
	if v == nil || strings.HasPrefix(partial, `"`) {
		return partial, nil
	}
	if i := slices.Index(words[:len(words)-1], "-P"); i > 0 && strings.Contains(v.form, "-P") {
		return partial, matching(partial, polstr.Complete(words[i+1:len(words)-1], partial))
	}
	return partial, matching(partial, v.next(words[1:len(words)-1]))
}

// lastCommand is where the command begins that is being typed.
func lastCommand(text string) (start int) {
	quote := false
	for i := range len(text) {
		switch c := text[i]; {
		case c == '"':
			quote = !quote
		case c == ';' && !quote:
			start = i + 1
		}
	}
	return start
}

func matching(prefix string, words []string) []string {
	words = slices.DeleteFunc(slices.Clone(words), func(w string) bool { return w == "" || !strings.HasPrefix(w, prefix) })
	slices.Sort(words)
	return slices.Compact(words)
}

// next returns the words that may follow those after the verb.
func (v *verb) next(words []string) []string {
	form := strings.Fields(v.form)
	for i := 0; i < len(words); i++ {
		if len(form) == 0 {
			return nil
		}
		w, last := words[i], i == len(words)-1
		if arguments := argumentsOf(w); arguments != nil && slices.Contains(form, "[OPTION]...") {
			if last {
				return arguments
			}
			continue
		}
		switch field := form[0]; {
		case field == "[-46n]" && w[0] != '-':
			form = form[2:] // it is SRC
		case field == "SPI" && i > 0 && words[i-1] == "esp-udp" && strings.ContainsAny(w, ".:"):
		case field == "[SPEC]" && w[0] == '-':
			form = form[2:] // it is -P
		case field[0] != '[' || field == "[PROTO]" || field == "[SPEC]":
			form = form[1:]
		}
	}
	switch { // nothing but algorithms may follow one
	case len(form) == 0 || form[0] != "[OPTION]...":
	case slices.Contains(words, "-A"):
		return nil
	case slices.Contains(words, "-E"):
		return []string{"-A"}
	case slices.Contains(words, "-C"):
		return []string{"-R"}
	}
	return candidatesFor(form)
}

// argumentsOf has the words that may follow an option's; nil is no option, and empty any word.
func argumentsOf(option string) []string {
	switch option {
	case "-m":
		return modeWords()
	case "-f":
		return flagWords()
	case "-E":
		return encWords()
	case "-A":
		return authWords()
	case "-C":
		return compWords()
	}
	for i := range extensions {
		if extensions[i].word == option {
			return []string{}
		}
	}
	return nil
}

// candidatesFor returns what may stand where the rest of a form begins.
func candidatesFor(form []string) (out []string) {
	for _, field := range form {
		optional := field[0] == '['
		switch field {
		case "[-46n]":
			out = append(out, "-4", "-6", "-n")
		case "DIR":
			out = append(out, slices.Collect(maps.Keys(directions))...)
		case "[frag]":
			out = append(out, fragmentWord)
		case "PROTO", "[PROTO]":
			out = append(out, protocolWords()...)
		case "UPPER":
			out = append(out, upperWords()...)
		case "[OPTION]...":
			for i := range extensions {
				out = append(out, extensions[i].word)
			}
		case "ALGORITHM":
			out = append(out, "-E", "-A", "-C")
		case "-P":
			out = append(out, "-P")
		}
		if !optional {
			break
		}
	}
	return out
}

// names collects a word of each row.
func names[T any](rows []T, word func(T) string) []string {
	out := make([]string, 0, len(rows))
	for _, r := range rows {
		out = append(out, word(r))
	}
	return out
}

func verbWords() []string {
	return names(verbs[:], func(v verb) string { return v.word })
}

func protocolWords() []string {
	return names(protocols[:], func(p protocol) string { return p.word })
}

func modeWords() []string {
	return names(modes[:], func(m modeWord) string { return m.word })
}

func flagWords() []string {
	return names(flags[:], func(f flagWord) string { return f.word })
}

func upperWords() []string {
	return append(names(upperNames[1:], func(u upperName) string { return u.name }), "any")
}

func encWords() []string {
	variants := names(alg.Variants, func(v *alg.Variant) string { return v.Name })
	return append(variants, names(alg.Encs, func(e *alg.Enc) string { return e.Name })...)
}

func authWords() []string {
	return names(alg.Auths, func(a *alg.Auth) string { return a.Name })
}

func compWords() []string {
	return names(alg.Comps, func(c *alg.Comp) string { return c.Name })
}
