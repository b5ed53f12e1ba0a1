package nat_test

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rum-vm/rum-agent/portwatch/nat"
	"github.com/rum-vm/rum-agent/test/ownnet"
)

func TestMain(m *testing.M) {
	ownnet.Enter()
	goleak.VerifyTestMain(m)
}

// sh runs a script in this network, which is the tests' own.
func sh(t *testing.T, script string) {
	t.Helper()
	cmd := exec.Command("sh", "-eu")
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: run: make deps\n%s\n%s", err, script, out)
	}
}

func clear(t *testing.T) {
	t.Helper()
	const script = "nft flush ruleset; for p in iptables ip6tables; do $p-legacy -t nat -F; $p-legacy -t nat -X; done"
	sh(t, script)
	t.Cleanup(func() { sh(t, script) })
}

func text(all []nat.Translation) (out []string) {
	for _, tr := range all {
		addr := "*"
		if tr.Addr.IsValid() {
			addr = tr.Addr.String()
		}
		out = append(out, fmt.Sprintf("%s %s %d-%d > %v", tr.Proto, addr, tr.First, tr.Last, tr.To))
	}
	return out
}

// What the programs that publish containers write, as their own sources and dumps of
// their rules have it.
func TestPortsThatContainersArePublishedAtAreRead(t *testing.T) {
	for name, test := range map[string]struct {
		rules string
		want  []string
	}{
		"docker without its proxy": {`
			iptables-nft -t nat -N DOCKER
			iptables-nft -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
			iptables-nft -t nat -A OUTPUT -m addrtype --dst-type LOCAL -j DOCKER
			iptables-nft -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
			iptables-nft -t nat -A DOCKER -i docker0 -j RETURN
			iptables-nft -t nat -A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
			iptables-nft -t nat -A DOCKER -d 192.0.2.7/32 ! -i docker0 -p udp -m udp --dport 5353 -j DNAT --to-destination 172.17.0.3:53
			iptables-nft -t nat -A DOCKER -i eth0 -p tcp --dport 9 -j DNAT --to-destination 172.17.0.4:9`,
			[]string{"tcp * 8080-8080 > 172.17.0.2:80", "udp 192.0.2.7 5353-5353 > 172.17.0.3:53"}},
		"portmap of CNI, as nerdctl uses it": {`
			iptables-nft -t nat -N CNI-HOSTPORT-DNAT
			iptables-nft -t nat -N CNI-DN-abc
			iptables-nft -t nat -A OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
			iptables-nft -t nat -A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: bridge id: abc" -m multiport --dports 8080,8443:8444 -j CNI-DN-abc
			iptables-nft -t nat -A CNI-DN-abc -s 10.4.0.0/24 -p tcp -m tcp --dport 8080 -j MARK --set-mark 0x2000
			iptables-nft -t nat -A CNI-DN-abc -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.4.0.3:80
			iptables-nft -t nat -A CNI-DN-abc -p tcp -m tcp --dport 8440:8443 -j DNAT --to-destination 10.4.0.3`,
			[]string{"tcp * 8080-8080 > 10.4.0.3:80", "tcp * 8443-8443 > 10.4.0.3:0"}},
		"netavark of Podman, with nftables": {`nft -f - <<'END'
			table inet netavark {
				chain NETAVARK-HOSTPORT-DNAT {
					tcp dport 8080 jump nv_2f259bab_10_88_0_0_nm16_dnat
				}
				chain nv_2f259bab_10_88_0_0_nm16_dnat {
					ip saddr 10.88.0.0/16 ip daddr != 127.0.0.1 tcp dport 8080 meta mark set 0x2000
					ip daddr 127.0.0.1 tcp dport 8080 meta mark set 0x2000
					tcp dport 8080 dnat ip to 10.88.0.5:80
				}
				chain OUTPUT {
					type nat hook output priority -100; policy accept;
					fib daddr type local jump NETAVARK-HOSTPORT-DNAT
				}
			}
END`, []string{"tcp * 8080-8080 > 10.88.0.5:80"}},
		"kube-proxy with iptables": {`
			for chain in SERVICES NODEPORTS EXT-A SVC-A SEP-1 SEP-2; do iptables-nft -t nat -N KUBE-$chain; done
			iptables-nft -t nat -A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
			iptables-nft -t nat -A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m tcp --dport 443 -j KUBE-SVC-A
			iptables-nft -t nat -A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
			iptables-nft -t nat -A KUBE-NODEPORTS -p tcp -m tcp --dport 30080 -j KUBE-EXT-A
			iptables-nft -t nat -A KUBE-EXT-A -j KUBE-SVC-A
			iptables-nft -t nat -A KUBE-SVC-A -m statistic --mode random --probability 0.5 -j KUBE-SEP-1
			iptables-nft -t nat -A KUBE-SVC-A -j KUBE-SEP-2
			iptables-nft -t nat -A KUBE-SEP-1 -p tcp -m tcp -j DNAT --to-destination 10.244.0.2:8080
			iptables-nft -t nat -A KUBE-SEP-2 -p tcp -m tcp -j DNAT --to-destination 10.244.0.3:8080`,
			[]string{"tcp 10.96.0.1 443-443 > 10.244.0.2:8080", "tcp 10.96.0.1 443-443 > 10.244.0.3:8080",
				"tcp * 30080-30080 > 10.244.0.2:8080", "tcp * 30080-30080 > 10.244.0.3:8080"}},
		"kube-proxy with nftables": {`nft -f - <<'END'
			table ip kube-proxy {
				map service-nodeports {
					type inet_proto . inet_service : verdict
					elements = { tcp . 30080 : goto external-A }
				}
				chain external-A { jump service-A; }
				chain service-A { numgen random mod 2 vmap { 0 : goto endpoint-1, 1 : goto endpoint-2 }; }
				chain endpoint-1 { meta l4proto tcp dnat to 10.244.0.2:8080; }
				chain endpoint-2 { meta l4proto tcp dnat to 10.244.0.3:8080; }
				chain services { fib daddr type local meta l4proto . th dport vmap @service-nodeports; }
				chain nat-output { type nat hook output priority -100; policy accept; jump services; }
			}
END`, []string{"tcp * 30080-30080 > 10.244.0.2:8080", "tcp * 30080-30080 > 10.244.0.3:8080"}},
		"maps and sets": {`nft -f - <<'END'
			table ip t {
				chain hundred { udp dport 7 dnat to 10.0.0.7; tcp dport 7001 dnat to 10.0.0.8:1; }
				chain out {
					type nat hook output priority -100; policy accept;
					dnat to tcp dport map { 81 : 10.0.0.1 . 8081, 82 : 10.0.0.2 . 8082 }
					tcp dport { 90, 92-94 } dnat to 10.0.0.3
					th dport vmap { 7000-7009 : jump hundred }
					ip daddr 127.0.0.1 tcp dport 95 dnat to 10.0.0.4:95
				}
			}
END`, []string{"tcp * 81-81 > 10.0.0.1:8081", "tcp * 82-82 > 10.0.0.2:8082", "tcp * 90-90 > 10.0.0.3:0", "tcp * 92-94 > 10.0.0.3:0",
			"tcp 127.0.0.1 95-95 > 10.0.0.4:95", "tcp * 7001-7001 > 10.0.0.8:1"}},
		"IPv6": {`nft -f - <<'END'
			table ip6 t { chain out { type nat hook output priority -100; policy accept;
				tcp dport 8080 dnat to [fd00::2]:80; dnat to udp dport map { 54 : fd00::4 . 5454 }; }
			}
END`, []string{"tcp * 8080-8080 > [fd00::2]:80", "udp * 54-54 > [fd00::4]:5454"}},
		"what only others' packets meet": {`nft -f - <<'END'
			table ip t { chain pre { type nat hook prerouting priority dstnat; policy accept; tcp dport 8080 dnat to 10.0.0.2:80; }
			}
END`, nil},
		"the older iptables, IPv6": {`
			ip6tables-legacy -t nat -N DOCKER
			ip6tables-legacy -t nat -A OUTPUT ! -d ::1 -m addrtype --dst-type LOCAL -m comment --comment "a \"quoted\" --dport 7" -j DOCKER
			ip6tables-legacy -t nat -A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination [fd00::2]:80
			ip6tables-legacy -t nat -A DOCKER -d fd00::1 -p udp -m udp --dport 54 -j DNAT --to-destination fd00::4
			ip6tables-legacy -t nat -A DOCKER -p icmpv6 -j DNAT --to-destination fd00::4
			ip6tables-legacy -t nat -A DOCKER -i eth0 -p tcp -m tcp --dport 9 -j DNAT --to-destination [fd00::2]:9
			ip6tables-legacy -t nat -A PREROUTING -p tcp -m tcp --dport 10 -j DNAT --to-destination [fd00::2]:10`,
			[]string{"tcp * 8080-8080 > [fd00::2]:80", "udp fd00::1 54-54 > [fd00::4]:0"}},
	} {
		read := func(t *testing.T, rules string) {
			clear(t)
			sh(t, rules)
			all, unclear, err := nat.Read()
			if got := text(all); err != nil || len(unclear) > 0 || !slices.Equal(got, test.want) {
				t.Errorf("%q, %q, %v; want %q", got, unclear, err, test.want)
			}
		}
		t.Run(name, func(t *testing.T) { read(t, test.rules) })
		if strings.Contains(test.rules, "iptables-nft") {
			t.Run(name+", the older one", func(t *testing.T) { read(t, strings.ReplaceAll(test.rules, "iptables-nft", "iptables-legacy")) })
		}
	}
}

func TestWhatOnlyPacketsFromElsewhereMeetIsReadOnDemand(t *testing.T) {
	clear(t)
	sh(t, `nft -f - <<'END'
		table ip t {
			chain pre {
				type nat hook prerouting priority dstnat; policy accept;
				iifname "eth0" tcp dport 8080 dnat to 10.0.0.2:80
				ip daddr 192.0.2.1 dnat to 10.0.0.3
			}
			chain out { type nat hook output priority -100; policy accept; iifname "eth0" tcp dport 81 dnat to 10.0.0.4; }
		}
END`)
	all, err := nat.ReadAll()
	if got, want := text(all), []string{" 192.0.2.1 0-0 > 10.0.0.3:0", "tcp * 8080-8080 > 10.0.0.2:80"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
	if all, unclear, err := nat.Read(); len(all)+len(unclear) > 0 || err != nil {
		t.Errorf("%v, %q, %v", all, unclear, err)
	}
}

func TestRulesThatCannotBeFollowedAreNamed(t *testing.T) {
	clear(t)
	sh(t, `nft -f - <<'END'
		table ip t {
			chain deep1 { jump deep2; }
			chain out {
				type nat hook output priority -100; policy accept;
				ip daddr 192.0.2.1 dnat to 10.0.0.2
				tcp dport 80 dnat to ip saddr map { 10.0.0.1 : 10.0.0.9 }
				jump c1
			}
			chain c9 { tcp dport 99 dnat to 10.0.0.2; }
			chain c8 { jump c9; }
			chain c7 { jump c8; }
			chain c6 { jump c7; }
			chain c5 { jump c6; }
			chain c4 { jump c5; }
			chain c3 { jump c4; }
			chain c2 { jump c3; }
			chain c1 { jump c2; }
			chain deep2 { }
		}
END`)
	all, unclear, err := nat.Read()
	want := []string{"t out: a DNAT of all ports to 10.0.0.2", "t c9: more than 8 jumps lead there"}
	if err != nil || !slices.Equal(unclear, want) {
		t.Errorf("%q, %v; want %q", unclear, err, want)
	}
	if got := text(all); !slices.Equal(got, []string{"tcp * 80-80 > 10.0.0.9:0"}) {
		t.Errorf("%q", got)
	}
}

func TestAChangeOfTheRulesIsTold(t *testing.T) {
	clear(t)
	ctx, cancel := context.WithCancel(t.Context())
	told, done := make(chan []nat.Translation, 10), make(chan struct{})
	go func() {
		defer close(done)
		nat.Watch(ctx, func(all []nat.Translation, unclear []string, err error) {
			if len(unclear) > 0 || err != nil {
				t.Error(unclear, err)
			}
			told <- all
		})
	}()
	defer func() { cancel(); <-done }()
	await := func(want ...string) {
		t.Helper()
		for {
			select {
			case all := <-told:
				if slices.Equal(text(all), want) {
					return
				}
			case <-time.After(20 * time.Second): // the rules are read every 30 s anyway
				t.Fatalf("not told of %q", want)
			}
		}
	}
	for range 3 {
		sh(t, "nft add table ip t; nft add chain ip t out '{ type nat hook output priority -100; }'; nft add rule ip t out tcp dport 80 dnat to 10.0.0.1:8080")
		await("tcp * 80-80 > 10.0.0.1:8080")
		sh(t, "nft delete table ip t")
		await()
	}
}

func TestAMachineWithoutRulesHasNoTranslations(t *testing.T) {
	clear(t)
	if all, unclear, err := nat.Read(); len(all) > 0 || len(unclear) > 0 || err != nil {
		t.Error(all, unclear, err)
	}
}
