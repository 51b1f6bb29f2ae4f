package nft

import (
	"errors"
	"os"
	"strings"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Foreign says in which directions rules of others may have something to say about packets of this host, so that no
// packet should go past them: in for the hooks prerouting, input and ingress, out for output and postrouting. What a rule
// says is not looked at; chains that have none and let all pass do not count. Tables of the old iptables count as both.
func Foreign() (in, out bool, err error) {
	if legacy() {
		return true, true, nil
	}
	c, err := openConn()
	if err != nil {
		return false, false, ignoreUnsupported(err)
	}
	defer c.close()
	chains, err := c.nl.ListChains()
	if err != nil {
		return false, false, explain(err)
	}
	for _, chain := range chains {
		inward, outward := directions(chain)
		if !inward && !outward || isOurs(chain.Table.Name) {
			continue
		}
		if chain.Policy == nil || *chain.Policy == nftables.ChainPolicyAccept {
			rules, err := c.nl.GetRules(chain.Table, chain)
			if err != nil && !errors.Is(err, unix.ENOENT) {
				return false, false, explain(err)
			}
			if len(rules) == 0 {
				continue
			}
		}
		in, out = in || inward, out || outward
	}
	return in, out, nil
}

// directions says which packets of this host pass a chain. Only base chains have a hook.
func directions(chain *nftables.Chain) (in, out bool) {
	if chain.Hooknum == nil || chain.Table == nil {
		return false, false
	}
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

// legacy says whether iptables has tables that are not nftables'.
func legacy() bool {
	for _, file := range []string{"ip_tables_names", "ip6_tables_names"} {
		if names, err := os.ReadFile("/proc/thread-self/net/" + file); err == nil && len(names) > 0 {
			return true
		}
	}
	return false
}

// RunForeign calls changed after each batch of news that may change what Foreign says, and when news were lost, until
// Close.
func (w *Watcher) RunForeign(changed func()) error {
	for {
		messages, err := w.nl.Receive()
		if w.closed.Load() {
			return nil
		}
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			return err
		}
		news := err != nil
		for _, m := range messages {
			news = news || isForeignNews(m)
		}
		if news {
			changed()
		}
	}
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
