package setup

import (
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

const inOwnNetwork = "RUM_TEST_IN_OWN_NETWORK"

// ownNetwork runs the test again, as root in a network namespace of its own, and reports whether this is that run.
func ownNetwork(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inOwnNetwork) != "" {
		return true
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.count=1")
	cmd.Env = append(os.Environ(), inOwnNetwork+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

func TestTranslationRulesOfTheKernelAreRead(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	for _, rule := range []string{
		"PREROUTING -p tcp --dport 2222 -j DNAT --to-destination 192.168.122.5:22",
		"PREROUTING -p udp --dport 5000:5010 -j DNAT --to-destination 192.168.122.6",
		"OUTPUT -p tcp -d 10.1.2.3 --dport 80 -j DNAT --to-destination 192.168.122.5:8080",
		"PREROUTING -p tcp --dport 443 -j DNAT --to-destination 172.17.0.2:443",
		"PREROUTING -i lo -d 10.1.2.4 -j DNAT --to-destination 192.168.122.8",
		"PREROUTING -p tcp --dport 25 -j REDIRECT --to-ports 2525",
		"POSTROUTING -j MASQUERADE",
	} {
		cmd := exec.CommandContext(t.Context(), "iptables-nft", append([]string{"-t", "nat", "-A"}, strings.Fields(rule)...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: run: apt-get install iptables\n%s", rule, err, out)
		}
	}
	nativeDNAT(t)
	var got []string
	for _, p := range natPorts(netip.MustParsePrefix("192.168.122.0/24").Contains) {
		got = append(got, p.String())
	}
	slices.Sort(got)
	want := []string{
		"any 10.1.2.4:every port -> 192.168.122.8 (dnat)",
		"tcp 10.1.2.3:80 -> 192.168.122.5:8080 (dnat)",
		"tcp 2222 -> 192.168.122.5:22 (dnat)",
		"tcp 3333 -> 192.168.122.7:33 (dnat)",
		"udp 4444 -> 192.168.122.7:44 (dnat)",
		"udp 5000-5010 -> 192.168.122.6 (dnat)",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// nativeDNAT adds rules as nft itself writes them, tcp dport 3333 dnat to 192.168.122.7:33, and as iptables-nft does from
// 1.8.10 on, with the protocol of the IP header: -p udp --dport 4444 to 192.168.122.7:44.
func nativeDNAT(t *testing.T) {
	t.Helper()
	conn, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	table := conn.AddTable(&nftables.Table{Name: "by-hand", Family: nftables.TableFamilyIPv4})
	chain := conn.AddChain(&nftables.Chain{
		Name: "prerouting", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest,
	})
	nativeProtocol := &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}
	headerProtocol := &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 9, Len: 1}
	for _, rule := range []struct {
		protocol        expr.Any
		number          byte
		high, low, port byte
	}{
		{nativeProtocol, unix.IPPROTO_TCP, 3333 >> 8, 3333 & 0xff, 33},
		{headerProtocol, unix.IPPROTO_UDP, 4444 >> 8, 4444 & 0xff, 44},
	} {
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
			rule.protocol,
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{rule.number}},
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{rule.high, rule.low}},
			&expr.Immediate{Register: 1, Data: []byte{192, 168, 122, 7}},
			&expr.Immediate{Register: 2, Data: []byte{0, rule.port}},
			&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1, RegProtoMin: 2},
		}})
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
}
