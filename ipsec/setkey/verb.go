package setkey

import (
	"fmt"
	"strings"

	"kipsec/ipsec/pfkey"
)

// verb is a word that begins a command.
type verb struct {
	word  string
	typ   pfkey.Type
	parse func(p *parser, t pfkey.Type) ([]*pfkey.Message, error) // reads the rest, without the semicolon
	form  string                                                  // of the rest, for Usage and Complete
}

// verbs has the commands, with KAME's names of the tokens.
var verbs = [...]verb{
	{"add", pfkey.Add, (*parser).association, "[-46n] SRC DST PROTO SPI [OPTION]... ALGORITHM"},       // ADD
	{"update", pfkey.Update, (*parser).association, "[-46n] SRC DST PROTO SPI [OPTION]... ALGORITHM"}, // UPDATE
	{"getspi", pfkey.GetSPI, (*parser).association, "[-46n] SRC DST PROTO SPI [OPTION]..."},           // GETSPI
	{"get", pfkey.Get, (*parser).association, "[-46n] SRC DST PROTO SPI"},                             // GET
	{"delete", pfkey.Delete, (*parser).association, "[-46n] SRC DST PROTO SPI"},                       // DELETE
	{"deleteall", pfkey.Delete, (*parser).deleteAll, "[-46n] SRC DST PROTO"},                          // DELETEALL
	{"flush", pfkey.Flush, (*parser).whole, "[PROTO]"},                                                // FLUSH
	{"dump", pfkey.Dump, (*parser).whole, "[PROTO]"},                                                  // DUMP
	{"spdadd", pfkey.SPDAdd, (*parser).policy, "[-46n] SRC DST UPPER [SPEC] -P POLICY"},               // SPDADD
	{"spdupdate", pfkey.SPDUpdate, (*parser).policy, "[-46n] SRC DST UPPER [SPEC] -P POLICY"},         // SPDUPDATE
	{"spddelete", pfkey.SPDDelete, (*parser).policy, "[-46n] SRC DST UPPER [SPEC] -P POLICY"},         // SPDDELETE
	{"spddump", pfkey.SPDDump, (*parser).wholePolicies, ""},                                           // SPDDUMP
	{"spdflush", pfkey.SPDFlush, (*parser).wholePolicies, ""},                                         // SPDFLUSH
	{"explain", 0, (*parser).explain, "DIR [-46n] SRC DST UPPER [SPEC] [frag]"},
	{"exit", 0, nil, ""}, // EXIT
	{"quit", 0, nil, ""},
	{"bye", 0, nil, ""},
}

func verbByWord(w string) *verb {
	for i := range verbs {
		if verbs[i].word == w {
			return &verbs[i]
		}
	}
	return nil
}

// Usage lists the commands, a line each, and what their words stand for.
func Usage() string {
	var b strings.Builder
	for i := range verbs {
		v := &verbs[i]
		fmt.Fprintf(&b, "  %s;\n", strings.TrimSpace(v.word+" "+v.form))
	}
	fmt.Fprintf(&b, `
  SRC, DST   address or name, [PORT]; of policies ADDRESS/PREFIX[PORT]
  PROTO      %s; esp-udp may have the address behind the translator after it
  SPI        decimal or 0x...
  OPTION     %s
             MODE is one of %s; FLAG one of %s
  ALGORITHM  -E NAME [KEY] [-A NAME [KEY]] | -A NAME [KEY] | -C deflate [-R]; KEY is "text" or 0x...
  UPPER      any, a number or a name of protocols(5); SPEC is TYPE,CODE of ICMP, A.B.C.D of GRE
  POLICY     in|out|fwd [prio N] discard|none|ipsec [PROTO/MODE/[SRC-DST]/LEVEL]...
             LEVEL is default, use, require, unique or unique:N
  DIR        in, out or fwd: where the packet goes of which explain says what would happen to it, and why;
             frag makes it a fragment that is not the first
`, strings.Join(protocolWords(), " "), optionForms(), strings.Join(modeWords(), " "), strings.Join(flagWords(), " "))
	return b.String()
}

// optionForms has those that are carried out.
func optionForms() string {
	var forms []string
	for i := range extensions {
		if e := &extensions[i]; e.word != "-ctx" && e.word != "-esp_frag" {
			forms = append(forms, e.word+" "+e.args)
		}
	}
	return strings.Join(forms, ", ")
}
