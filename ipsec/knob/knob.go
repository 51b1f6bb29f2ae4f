// Package knob declares the variables of ipsec(4): net.inet.ipsec, net.inet6.ipsec6 and net.key.
//
// Each variable stands here once, with its default, the values that it accepts and the line that describes it. The
// engine and the key engine read them packet by packet; the files of the mount, sysctl -d and the manual show the
// same declarations. The package acts on nothing itself.
package knob

import "kipsec/kern/sysctl"

// Family holds the variables that IPv4 and IPv6 have each for itself.
type Family struct {
	ESPTransDeflev *sysctl.Int
	ESPNetDeflev   *sysctl.Int
	AHTransDeflev  *sysctl.Int
	AHNetDeflev    *sysctl.Int
	DefPolicy      *sysctl.Int
	ECN            *sysctl.Int
}

// Key holds the variables of the key engine (KAME netkey/key_var.h).
type Key struct {
	Debug            *sysctl.Int
	SPITryCnt        *sysctl.Int
	SPIMinVal        *sysctl.Int
	SPIMaxVal        *sysctl.Int
	IntRandom        *sysctl.Int
	LarvalLifetime   *sysctl.Int
	BlockAcqCount    *sysctl.Int
	BlockAcqLifetime *sysctl.Int
	ESPKeyMin        *sysctl.Int
	ESPAuth          *sysctl.Int
	AHKeyMin         *sysctl.Int
	PreferredOldSA   *sysctl.Int
}

// Set is all variables of one kernel.
type Set struct {
	V4, V6       Family
	AHClearTOS   *sysctl.Int
	AHOffsetMask *sysctl.Int
	DFBit        *sysctl.Int
	Debug        *sysctl.Int // one variable, shown in both trees
	Enabled      *sysctl.Int // the same
	Key          Key
}

// Names of the nodes that show Debug and Enabled.
const (
	debug4   = "net.inet.ipsec.debug"
	debug6   = "net.inet6.ipsec6.debug"
	enabled4 = "net.inet.ipsec.enabled"
	enabled6 = "net.inet6.ipsec6.enabled"
)

// Family returns the variables for an IP family.
func (s *Set) Family(v6 bool) *Family {
	if v6 {
		return &s.V6
	}
	return &s.V4
}

// row is a declaration and the place where its variable goes.
type row struct {
	at   func(*Set) **sysctl.Int
	spec sysctl.Spec
}

// rows is the table. A row with neither Min nor Max accepts any int.
var rows = []row{
	{func(s *Set) **sysctl.Int { return &s.V4.ESPTransDeflev }, sysctl.Spec{Name: "net.inet.ipsec.esp_trans_deflev", Default: 1, Min: 1, Max: 2, Doc: "Level of a default request for ESP in transport mode over IPv4 (1 use, 2 require)"}},
	{func(s *Set) **sysctl.Int { return &s.V4.ESPNetDeflev }, sysctl.Spec{Name: "net.inet.ipsec.esp_net_deflev", Default: 1, Min: 1, Max: 2, Doc: "Level of a default request for ESP in tunnel mode over IPv4 (1 use, 2 require)"}},
	{func(s *Set) **sysctl.Int { return &s.V4.AHTransDeflev }, sysctl.Spec{Name: "net.inet.ipsec.ah_trans_deflev", Default: 1, Min: 1, Max: 2, Doc: "Level of a default request for AH in transport mode over IPv4 (1 use, 2 require)"}},
	{func(s *Set) **sysctl.Int { return &s.V4.AHNetDeflev }, sysctl.Spec{Name: "net.inet.ipsec.ah_net_deflev", Default: 1, Min: 1, Max: 2, Doc: "Level of a default request for AH in tunnel mode over IPv4 (1 use, 2 require)"}},
	{func(s *Set) **sysctl.Int { return &s.V4.DefPolicy }, sysctl.Spec{Name: "net.inet.ipsec.def_policy", Default: 1, Min: 0, Max: 1, Doc: "Policy for IPv4 packets that no policy matches (0 discard, 1 none)"}},
	{func(s *Set) **sysctl.Int { return &s.AHClearTOS }, sysctl.Spec{Name: "net.inet.ipsec.ah_cleartos", Default: 1, Doc: "Clear the IPv4 type of service while AH computes its ICV (0 no, else yes; RFC 2402 wants yes)"}},
	{func(s *Set) **sysctl.Int { return &s.AHOffsetMask }, sysctl.Spec{Name: "net.inet.ipsec.ah_offsetmask", Default: 0, Doc: "Mask on the IPv4 flags and fragment offset while AH computes its ICV (RFC 2402 wants 0)"}},
	{func(s *Set) **sysctl.Int { return &s.DFBit }, sysctl.Spec{Name: "net.inet.ipsec.dfbit", Default: 0, Min: 0, Max: 2, Doc: "DF bit of outer IPv4 headers of tunnels (0 clear, 1 set, 2 copy from the inner header)"}},
	{func(s *Set) **sysctl.Int { return &s.V4.ECN }, sysctl.Spec{Name: "net.inet.ipsec.ecn", Default: 0, Min: -1, Max: 1, Doc: "ECN in IPv4 tunnels (-1 copy outwards only, 0 forbidden, 1 allowed)"}},
	{func(s *Set) **sysctl.Int { return &s.Debug }, sysctl.Spec{Name: debug4, Default: 0, Doc: "Log dropped packets and oddities through syslog (0 no, else yes)"}},
	{func(s *Set) **sysctl.Int { return &s.Enabled }, sysctl.Spec{Name: enabled4, Default: 1, Min: 0, Max: 1, Doc: "IPsec in this namespace (0 off: no policy is asked and nothing unprotected, 1 on)"}},

	{func(s *Set) **sysctl.Int { return &s.V6.ESPTransDeflev }, sysctl.Spec{Name: "net.inet6.ipsec6.esp_trans_deflev", Default: 1, Min: 1, Max: 2, Doc: "Level of a default request for ESP in transport mode over IPv6 (1 use, 2 require)"}},
	{func(s *Set) **sysctl.Int { return &s.V6.ESPNetDeflev }, sysctl.Spec{Name: "net.inet6.ipsec6.esp_net_deflev", Default: 1, Min: 1, Max: 2, Doc: "Level of a default request for ESP in tunnel mode over IPv6 (1 use, 2 require)"}},
	{func(s *Set) **sysctl.Int { return &s.V6.AHTransDeflev }, sysctl.Spec{Name: "net.inet6.ipsec6.ah_trans_deflev", Default: 1, Min: 1, Max: 2, Doc: "Level of a default request for AH in transport mode over IPv6 (1 use, 2 require)"}},
	{func(s *Set) **sysctl.Int { return &s.V6.AHNetDeflev }, sysctl.Spec{Name: "net.inet6.ipsec6.ah_net_deflev", Default: 1, Min: 1, Max: 2, Doc: "Level of a default request for AH in tunnel mode over IPv6 (1 use, 2 require)"}},
	{func(s *Set) **sysctl.Int { return &s.V6.DefPolicy }, sysctl.Spec{Name: "net.inet6.ipsec6.def_policy", Default: 1, Min: 0, Max: 1, Doc: "Policy for IPv6 packets that no policy matches (0 discard, 1 none)"}},
	{func(s *Set) **sysctl.Int { return &s.V6.ECN }, sysctl.Spec{Name: "net.inet6.ipsec6.ecn", Default: 0, Min: -1, Max: 1, Doc: "ECN in IPv6 tunnels (-1 copy outwards only, 0 forbidden, 1 allowed)"}},

	{func(s *Set) **sysctl.Int { return &s.Key.Debug }, sysctl.Spec{Name: "net.key.debug", Default: 0, Doc: "Trace through syslog: sum of 1 in short, 2 data, 4 dumps, with 16 for PF_KEY, 32 for algorithms, 64 for packets (0 nothing)"}},
	{func(s *Set) **sysctl.Int { return &s.Key.SPITryCnt }, sysctl.Spec{Name: "net.key.spi_trycnt", Default: 1000, Doc: "Tries to find an unused SPI"}},
	{func(s *Set) **sysctl.Int { return &s.Key.SPIMinVal }, sysctl.Spec{Name: "net.key.spi_minval", Default: 0x100, Doc: "Lowest SPI given out"}},
	{func(s *Set) **sysctl.Int { return &s.Key.SPIMaxVal }, sysctl.Spec{Name: "net.key.spi_maxval", Default: 0x0fffffff, Doc: "Highest SPI given out"}},
	{func(s *Set) **sysctl.Int { return &s.Key.IntRandom }, sysctl.Spec{Name: "net.key.int_random", Default: 60, Doc: "Without effect, kept for scripts: seconds between two seeds of KAME's own generator, where random numbers come from Linux"}},
	{func(s *Set) **sysctl.Int { return &s.Key.LarvalLifetime }, sysctl.Spec{Name: "net.key.larval_lifetime", Default: 30, Doc: "Seconds that a larval SA lives"}},
	{func(s *Set) **sysctl.Int { return &s.Key.BlockAcqCount }, sysctl.Spec{Name: "net.key.blockacq_count", Default: 10, Doc: "ACQUIRE messages held back between two that are sent"}},
	{func(s *Set) **sysctl.Int { return &s.Key.BlockAcqLifetime }, sysctl.Spec{Name: "net.key.blockacq_lifetime", Default: 20, Doc: "Seconds that a held-back ACQUIRE is remembered"}},
	{func(s *Set) **sysctl.Int { return &s.Key.ESPKeyMin }, sysctl.Spec{Name: "net.key.esp_keymin", Default: 256, Doc: "Shortest encryption key in bits that an ACQUIRE proposes"}},
	{func(s *Set) **sysctl.Int { return &s.Key.ESPAuth }, sysctl.Spec{Name: "net.key.esp_auth", Default: 0, Doc: "Propose integrity for ESP in an ACQUIRE (0 no, else yes)"}},
	{func(s *Set) **sysctl.Int { return &s.Key.AHKeyMin }, sysctl.Spec{Name: "net.key.ah_keymin", Default: 128, Doc: "Shortest integrity key in bits that an ACQUIRE proposes"}},
	{func(s *Set) **sysctl.Int { return &s.Key.PreferredOldSA }, sysctl.Spec{Name: "net.key.preferred_oldsa", Default: 1, Doc: "Use the oldest of several fitting SAs (0 the newest, else the oldest)"}},
}

// New makes the variables with their defaults.
func New() *Set {
	s := new(Set)
	for _, r := range rows {
		*r.at(s) = sysctl.NewInt(r.spec)
	}
	return s
}

// AddTo puts the variables into a tree.
func (s *Set) AddTo(t *sysctl.Tree) error {
	for _, r := range rows {
		if err := t.Add(*r.at(s)); err != nil {
			return err
		}
	}
	return t.Add(sysctl.Alias(debug6, s.Debug), sysctl.Alias(enabled6, s.Enabled))
}

// Dumps makes the read-only documents of net.key (KAME's ids 13 and 14): all SAs and all policies as PF_KEY messages, one behind
// the other, as SADB_DUMP and SADB_X_SPDDUMP would answer. They are for root alone, as PF_KEY is: the one has keys, and both
// may be long.
func Dumps(sas, policies func() string) []sysctl.Node {
	return []sysctl.Node{
		sysctl.NewFunc("net.key.dumpsa", "All SAs with their keys, as PF_KEY messages", sas).Binary().RootOnly(),
		sysctl.NewFunc("net.key.dumpsp", "All policies, as PF_KEY messages", policies).Binary().RootOnly(),
	}
}
