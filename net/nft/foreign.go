package nft

import (
	"errors"
	"os"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Others is what rules of others may have something to say about. What a rule says is not looked at; chains that have none and
// let all pass do not count, but where it says so.
type Others struct {
	// In and Out are packets of this host, so that none should go past the rules: In for the hooks prerouting, input and ingress,
	// Out for output and postrouting. Tables of the old iptables count as both.
	In, Out bool
	// Any says that there is something at any hook of IP, forward among them, or of bridges: it may have connections tracked, and then
	// IP's fragments are joined in hook prerouting. Any chain there counts, also without rules.
	Any bool
	// NAT is the families of whose addresses chains translate some.
	NAT Families
}

// Foreign looks at the rules of others in the network namespace of the calling thread.
func Foreign() (Others, error) {
	others := legacy()
	c, err := openConn()
	if err != nil {
		return others, ignoreUnsupported(err)
	}
	defer c.close()
	chains, err := c.nl.ListChains()
	if err != nil {
		return others, explain(err)
	}
	for _, chain := range chains {
		if chain.Hooknum == nil || chain.Table == nil || isOurs(chain.Table.Name) {
			continue
		}
		inward, outward := directions(chain)
		tracking := mayTrack(chain.Table.Family)
		others.Any = others.Any || isPrerouting(chain)
		if !inward && !outward && !tracking {
			continue
		}
		if chain.Policy == nil || *chain.Policy == nftables.ChainPolicyAccept {
			rules, err := c.nl.GetRules(chain.Table, chain)
			if err != nil && !errors.Is(err, unix.ENOENT) {
				return others, explain(err)
			}
			if len(rules) == 0 {
				continue
			}
		}
		others.In, others.Out, others.Any = others.In || inward, others.Out || outward, others.Any || tracking
		if chain.Type == nftables.ChainTypeNAT {
			others.NAT.add(chain.Table.Family)
		}
	}
	return others, nil
}

// add adds what chains of a table translate.
func (n *Families) add(table nftables.TableFamily) {
	both := table == nftables.TableFamilyINet
	n.IPv4 = n.IPv4 || both || table == nftables.TableFamilyIPv4
	n.IPv6 = n.IPv6 || both || table == nftables.TableFamilyIPv6
}

// mayTrack says whether rules of a family can have the connections of IP tracked.
func mayTrack(family nftables.TableFamily) bool {
	switch family {
	case nftables.TableFamilyIPv4, nftables.TableFamilyIPv6, nftables.TableFamilyINet, nftables.TableFamilyBridge:
		return true
	}
	return false
}

func isPrerouting(chain *nftables.Chain) bool {
	return mayTrack(chain.Table.Family) && *chain.Hooknum == *nftables.ChainHookPrerouting
}

// directions says which packets of this host pass a base chain.
func directions(chain *nftables.Chain) (in, out bool) {
	const netdevIngress, inetIngress = unix.NF_NETDEV_INGRESS, unix.NF_INET_NUMHOOKS
	switch hook := uint32(*chain.Hooknum); chain.Table.Family {
	case nftables.TableFamilyIPv4, nftables.TableFamilyIPv6, nftables.TableFamilyINet:
		return hook == unix.NF_INET_PRE_ROUTING || hook == unix.NF_INET_LOCAL_IN || hook == inetIngress,
			hook == unix.NF_INET_LOCAL_OUT || hook == unix.NF_INET_POST_ROUTING
	case nftables.TableFamilyNetdev:
		return hook == netdevIngress, false
	}
	return false, false
}

func isOurs(table string) bool {
	return table == TableName || strings.HasPrefix(table, TableName+"-")
}

// legacy is what tables of iptables count as that are not nftables'.
func legacy() (others Others) {
	for file, family := range map[string]nftables.TableFamily{
		"ip_tables_names": nftables.TableFamilyIPv4, "ip6_tables_names": nftables.TableFamilyIPv6,
	} {
		names, err := os.ReadFile("/proc/thread-self/net/" + file)
		if err != nil || len(names) == 0 {
			continue
		}
		others.In, others.Out, others.Any = true, true, true
		if slices.Contains(strings.Fields(string(names)), "nat") {
			others.NAT.add(family)
		}
	}
	return others
}

// RunForeign calls changed after each batch of news that may change what Foreign says, and when news were lost, until
// Close.
func (w *Watcher) RunForeign(changed func()) error {
	return w.Listener.Run(func(messages []netlink.Message, lost bool) {
		if lost || slices.ContainsFunc(messages, isForeignNews) {
			changed()
		}
	})
}

func isForeignNews(m netlink.Message) bool {
	const nfgenmsg, table = 4, 1 // the attribute is the first number in all of these messages
	switch m.Header.Type &^ (unix.NFNL_SUBSYS_NFTABLES << 8) {
	case unix.NFT_MSG_NEWCHAIN, unix.NFT_MSG_DELCHAIN, unix.NFT_MSG_NEWRULE, unix.NFT_MSG_DELRULE, unix.NFT_MSG_DELTABLE:
	default:
		return false
	}
	if len(m.Data) < nfgenmsg {
		return false
	}
	ad, err := netlink.NewAttributeDecoder(m.Data[nfgenmsg:])
	if err != nil {
		return true
	}
	for ad.Next() {
		if ad.Type() == table {
			return !isOurs(ad.String())
		}
	}
	return true
}
