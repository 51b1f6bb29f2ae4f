// Command rows prints the algorithm tables as what a setkey script says of an SA, one row a line: protocol, a label
// without blanks, and the words that follow the SPI.
//
//	rows             all rows
//	rows esp ah-old  those of the protocols named
//
// The matrix test makes its SAs of it, so that an algorithm that is added to package alg is tested with no further
// word. It sends nothing and its keys are known to everybody.
package main

import (
	"bufio"
	"fmt"
	"os"
	"slices"

	"kipsec/ipsec/alg"
	"kipsec/ipsec/pfkey"
)

func main() {
	w := bufio.NewWriter(os.Stdout)
	defer w.Flush()
	for _, r := range rows() {
		if len(os.Args) == 1 || slices.Contains(os.Args[1:], r.proto) {
			fmt.Fprintf(w, "%s %s %s\n", r.proto, r.label, r.words)
		}
	}
}

// row is one SA's part of a script.
type row struct{ proto, label, words string }

func rows() (all []row) {
	sha := integrity(alg.AuthByName("hmac-sha256"), "hmac-sha256")
	gcm := encryption(alg.EncByName("aes-gcm-16"), "aes-gcm-16", 160)
	cbc := encryption(alg.EncByName("aes-cbc"), "aes-cbc", 128)
	for _, e := range alg.Encs {
		for _, name := range append([]string{e.Name}, e.Aliases...) {
			for _, bits := range lengths(e) {
				words := encryption(e, name, bits)
				if !e.Combined() {
					words += sha
				}
				all = append(all, row{"esp", fmt.Sprintf("%s-%d", name, bits), words})
			}
			if e.CheckFlags(pfkey.FlagOld) == nil {
				all = append(all, row{"esp-old", name, encryption(e, name, e.MinBits)})
			}
		}
	}
	for _, v := range alg.Variants {
		e, proto, auth := alg.EncByNumber(v.Enc), "esp", sha
		if v.Old {
			proto, auth = "esp-old", ""
		}
		all = append(all, row{proto, v.Name, encryption(e, v.Name, e.MinBits) + auth})
	}
	for _, a := range alg.Auths {
		for _, name := range append([]string{a.Name}, a.Aliases...) {
			words := integrity(a, name)
			all = append(all, row{"esp", "aes-cbc/" + name, cbc + words})
			if a.ICVLen > 0 {
				all = append(all, row{"ah", name, words}, row{"ah-old", name, words})
			}
		}
	}
	all = append(all, row{"esp", "aes-cbc/none", cbc})
	for _, words := range []string{"-f seq-pad", "-f zero-pad", "-f random-pad", "-f nocyclic-seq", "-r 512"} {
		all = append(all, row{"esp", label("aes-cbc/hmac-sha256", words), " " + words + cbc + sha})
	}
	for _, words := range []string{"-r 4 -f esn", "-r 512 -f esn", "-f esn"} {
		all = append(all,
			row{"esp", label("aes-gcm-16", words), " " + words + gcm},
			row{"esp", label("aes-cbc/hmac-sha256", words), " " + words + cbc + sha})
	}
	for _, c := range alg.Comps {
		all = append(all, row{"ipcomp", c.Name, " -C " + c.Name})
	}
	return all
}

// lengths are the key lengths that are tried: all that are listed, or the ends of a range and what lies between them.
func lengths(e *alg.Enc) []int {
	switch {
	case e.Bits != nil:
		return e.Bits
	case e.MinBits == 0: // the key is ignored
		return []int{0}
	case e.MinBits == e.MaxBits:
		return []int{e.MinBits}
	}
	return []int{e.MinBits, (e.MinBits + e.MaxBits) / 16 * 8, e.MaxBits}
}

func encryption(e *alg.Enc, name string, bits int) string { return " -E " + name + key(bits) }

func integrity(a *alg.Auth, name string) string { return " -A " + name + key(a.MinBits) }

// key is a key of so many bits as setkey reads it, with a blank in front; nothing for none.
func key(bits int) string {
	if bits == 0 {
		return ""
	}
	b := make([]byte, bits/8)
	for i := range b {
		b[i] = byte(i*37 + 11)
	}
	return fmt.Sprintf(" 0x%x", b)
}

// label makes one word of a name and options.
func label(name, words string) string {
	b := []byte(name + " " + words)
	for i, c := range b {
		if c == ' ' {
			b[i] = '_'
		}
	}
	return string(b)
}
