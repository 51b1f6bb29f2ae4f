package polstr

import (
	"slices"
	"strings"

	"kipsec/ipsec/pfkey"
)

// Complete returns the words that may follow those of a policy string; of a request, which begins with what
// partial has, they are its next part. A word that ends with a slash is not whole yet.
func Complete(words []string, partial string) []string {
	if len(words) == 0 {
		return directions[pfkey.DirIn:]
	}
	switch last := words[len(words)-1]; {
	case slices.Contains(words[1:], types[pfkey.PolicyIPsec]):
		return completeRequest(partial)
	case last == "prio" || last == "priority":
		return []string{"high", "def", "low"}
	case len(words) == 1:
		return append([]string{"prio"}, types[:]...)
	case !slices.ContainsFunc(words[1:], func(w string) bool { return slices.Contains(types[:], w) }):
		return types[:]
	}
	return nil
}

func completeRequest(partial string) (out []string) {
	parts := strings.Split(partial, "/")
	known := strings.Join(parts[:len(parts)-1], "/") + "/"
	switch len(parts) {
	case 1:
		for _, p := range protocols {
			out = append(out, p.word+"/")
		}
	case 2:
		out = append(out, known+modes[pfkey.ModeTransport]+"//", known+modes[pfkey.ModeTunnel]+"/")
	case 4:
		for _, l := range levels {
			out = append(out, known+l)
		}
	}
	return out
}
