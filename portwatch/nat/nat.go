// Package nat reads which ports of this machine the kernel's packet filter translates to
// other addresses (DNAT). Containers are published that way, and nothing listens on such
// a port.
//
// What is read is what nftables has, with iptables where that writes nftables' rules
// (iptables-nft), and the tables of the older iptables, of whose changes nobody is told.
package nat

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/rum-vm/rum-agent/portwatch/netevents"
)

// Translation is some ports of this machine that lead elsewhere.
type Translation struct {
	Proto string // "tcp" or "udp"
	// First and Last bound the ports.
	First, Last uint16
	// Addr is the address of this machine that it is for; the zero Addr for all but
	// perhaps loopback's.
	Addr netip.Addr
	// To is where they lead. Port 0 is for each its own.
	To netip.AddrPort
}

// maxTranslations bounds what is read; a machine of a cluster can have thousands.
const maxTranslations = 1024

// Read reads the translations that what programs of this machine send meets, sorted, and
// in words the rules that it cannot follow. A machine without any, and a user who may not
// see them, have none.
func Read() (all []Translation, unclear []string, err error) { return read(false) }

// ReadAll reads, sorted, also the translations that only packets from elsewhere meet, and
// those of all ports: First and Last are 0 then, and Proto is empty for any.
func ReadAll() ([]Translation, error) {
	all, _, err := read(true)
	return all, err
}

func read(everything bool) (all []Translation, unclear []string, err error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, nil, err
	}
	chains, err := conn.ListChains()
	if errors.Is(err, unix.EPERM) {
		return nil, nil, nil
	}
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		err = nil // this kernel has no nftables, whose rules could be read; perhaps the older tables
	}
	w := walker{conn: conn, everything: everything, err: err, rules: make(map[chainKey][]*nftables.Rule), sets: make(map[setKey][]nftables.SetElement)}
	for _, c := range chains {
		if c.Type != nftables.ChainTypeNAT || c.Hooknum == nil {
			continue
		}
		w.incoming = *c.Hooknum == *nftables.ChainHookPrerouting
		if *c.Hooknum == *nftables.ChainHookOutput || everything && w.incoming {
			w.walk(c.Table, c.Name, match{}, 0)
		}
	}
	w.legacy()
	slices.SortFunc(w.found, compare)
	return slices.Compact(w.found), w.unclear, w.err
}

func compare(a, b Translation) int {
	return cmp.Or(cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.First, b.First), cmp.Compare(a.Last, b.Last),
		a.Addr.Compare(b.Addr), a.To.Compare(b.To))
}

const (
	// safetyInterval is how often the rules are read although none has changed.
	safetyInterval = 30 * time.Second
	// gather joins changes: a program that publishes a port makes several.
	gather = 50 * time.Millisecond
	// share bounds the time that reading takes, of all.
	share = 20
)

// Watch calls changed with the translations at once, if there are any, and whenever they
// have become others, until ctx ends. Where the kernel does not tell of changes, they are
// seen half a minute later.
func Watch(ctx context.Context, changed func(all []Translation, unclear []string, err error)) {
	notified := make(chan struct{}, 1)
	var events sync.WaitGroup
	defer events.Wait()
	events.Go(func() {
		// Without them there is the safety interval.
		_ = netevents.Follow(ctx, unix.NETLINK_NETFILTER, 1<<(unix.NFNLGRP_NFTABLES-1), 0, func() {
			select {
			case notified <- struct{}{}:
			default:
			}
		})
	})
	var last []Translation
	said := fmt.Sprint([]string(nil), nil)
	for {
		began := time.Now()
		all, unclear, err := Read()
		if now := fmt.Sprint(unclear, err); !slices.Equal(all, last) || now != said {
			last, said = all, now
			changed(all, unclear, err)
		}
		if !netevents.Sleep(ctx, max(gather, share*time.Since(began))) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-notified:
			if !netevents.Sleep(ctx, gather) {
				return
			}
		case <-time.After(safetyInterval):
		}
	}
}
