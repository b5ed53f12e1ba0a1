package portwatch

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/rum-vm/rum-agent/portwatch/portlist"
)

func TestABrokenSockDiagFallsBackToProcfs(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	addr := netip.MustParseAddrPort(ln.Addr().String())
	var s Scanner
	defer s.Close()
	if s.diag, err = dialDiag(); err != nil {
		t.Fatal(err)
	}
	s.diag.close()
	for range 2 {
		listeners, err := s.Scan()
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(listeners, func(l portlist.Listener) bool { return l.Addr == addr }) {
			t.Errorf("%s is not in the scan", addr)
		}
		if s.diag != nil {
			t.Error("sock_diag is tried again at once")
		}
	}
	s.diagAfter = s.diagAfter.Add(-diagRetry)
	if _, err := s.Scan(); err != nil || s.diag == nil {
		t.Errorf("sock_diag is not tried again later (error %v)", err)
	}
}

func FuzzParseDiag(f *testing.F) {
	v4 := make([]byte, diagMsgLen)
	copy(v4, "\x02\x0a\x00\x00\x1f\x90\x00\x00\x7f\x00\x00\x01")
	v6 := slices.Concat([]byte{10}, v4[1:], []byte("attributes"))
	f.Add(v4)
	f.Add(v6)
	f.Add(v4[:diagMsgLen-1])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseDiag("tcp", b)
		if err == nil && (!s.addr.IsValid() || !s.remote.IsValid() || s.addr.Addr().Is4In6()) {
			t.Errorf("bad address %v, remote %v", s.addr, s.remote)
		}
	})
}
