package nft

import (
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"kipsec/net/news"
)

// Watcher hears when tables are deleted in a network namespace, or ours are changed by others, so that rules which somebody
// flushed can be made anew.
type Watcher struct{ *news.Listener }

// Watch begins to listen in the network namespace of the calling thread.
func Watch() (*Watcher, error) {
	l, err := news.Listen(unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES)
	if err != nil {
		return nil, fmt.Errorf("cannot watch nf_tables: %w", err)
	}
	if err := l.Ignore(newGeneration); err != nil {
		l.Close()
		return nil, fmt.Errorf("cannot watch nf_tables: %w", err)
	}
	return &Watcher{l}, nil
}

const (
	// deleteTable is the type of the message about a deleted table.
	deleteTable = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_DELTABLE
	// newGeneration is that of the message that comes alone after each transaction.
	newGeneration = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWGEN
)

// Run calls lost after each batch of news with a deleted table of whatever name, or when news were lost, and with touched after
// one in which somebody else changed a table of ours, until Close.
func (w *Watcher) Run(lost func(touched bool)) error {
	return w.Listener.Run(func(messages []netlink.Message, missed bool) {
		touched := slices.ContainsFunc(messages, touches)
		if missed || touched || slices.ContainsFunc(messages, func(m netlink.Message) bool { return m.Header.Type == deleteTable }) {
			lost(touched)
		}
	})
}

// touches says whether a message tells that somebody else changed the table of IPv4 or of IPv6, or that of returnName. All that
// changes in a table has its name as the first attribute.
func touches(m netlink.Message) bool {
	if ports.has(m.Header.PID) || m.Header.Type>>8 != unix.NFNL_SUBSYS_NFTABLES || m.Header.Type == newGeneration {
		return false
	}
	if len(m.Data) < sizeofNfgen {
		return false
	}
	name, ok := map[nftables.TableFamily]string{
		ip4.table: TableName, ip6.table: TableName, nftables.TableFamilyNetdev: returnName,
	}[nftables.TableFamily(m.Data[0])]
	if !ok {
		return false
	}
	ad, err := netlink.NewAttributeDecoder(m.Data[sizeofNfgen:])
	if err != nil {
		return false
	}
	for ad.Next() {
		if ad.Type() == unix.NFTA_TABLE_NAME {
			return ad.String() == name
		}
	}
	return false
}

// sizeofNfgen is the size of struct nfgenmsg, which begins with the family.
const sizeofNfgen = 4
