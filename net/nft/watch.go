package nft

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Watcher hears when tables are deleted in a network namespace, so that rules which somebody flushed can be made anew.
type Watcher struct {
	nl     *netlink.Conn
	closed atomic.Bool
}

// Watch begins to listen in the network namespace of the calling thread.
func Watch() (*Watcher, error) {
	nl, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("cannot watch nf_tables: %w", err)
	}
	if err := nl.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		nl.Close()
		return nil, fmt.Errorf("cannot watch nf_tables: %w", err)
	}
	return &Watcher{nl: nl}, nil
}

// deleteTable is the type of the message about a deleted table.
const deleteTable = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_DELTABLE

// Run calls deleted after each batch of news with a deleted table of whatever name, and when news were lost, until Close.
func (w *Watcher) Run(deleted func()) error {
	for {
		messages, err := w.nl.Receive()
		if w.closed.Load() {
			return nil
		}
		if err != nil {
			deleted() // the buffer was full, or worse: look at the tables
			if !errors.Is(err, unix.ENOBUFS) {
				return err
			}
			continue
		}
		for _, m := range messages {
			if m.Header.Type == deleteTable {
				deleted()
				break
			}
		}
	}
}

// Close ends Run.
func (w *Watcher) Close() error {
	if w.closed.Swap(true) {
		return nil
	}
	return w.nl.Close()
}
