package output

import (
	"strings"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

func TestAStatusFitsWhateverTheWidth(t *testing.T) {
	st := example()
	dev := &st.VMs[0]
	dev.Warning = "the guest agent is older than this host agent, v1.2.3; replace it with a newer seed image, or with: rum-host-agent install dev"
	dev.Forwards[0].Process = "画像サーバー漢字[812]"
	dev.Forwards[0].Label = "the shop of shops, with a label that is long"
	dev.Forwards[1].Reason = strings.Repeat("x", 300)
	dev.Forwards = append(dev.Forwards, status.Forward{Proto: "unix", State: status.Active, Guest: []string{"/run/app.sock"}, Host: []string{"/home/user/.rum/with/a/long/path/app.sock"}, Path: "vsock"})
	st.VMs[1].Name = strings.Repeat("a-name-", 12)
	for _, width := range []int{40, 60, 80, 100, 200} {
		for _, rates := range []Rates{nil, {RateKey("dev", &dev.Forwards[0]): {1.25e6, 3}}} {
			if rates != nil && width < 60 {
				continue
			}
			var b strings.Builder
			if err := Status(&b, st, Look{Width: width, Rates: rates}); err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(b.String()) {
				if w := columns(strings.TrimSuffix(line, "\n")); w > width {
					t.Errorf("%d columns of %d: %s", w, width, line)
				}
			}
			for _, want := range []string{"8080/tcp", "claim", "held by dnsmasq[9]", "socket"} {
				if !strings.Contains(b.String(), want) {
					t.Errorf("%q is not in %d columns:\n%s", want, width, b.String())
				}
			}
		}
	}
	var b strings.Builder
	if err := Status(&b, example(), Look{Width: 80}); err != nil {
		t.Fatal(err)
	}
	want := `old  down  unix:/x
  error: connect: no such file

dev  connected  vsock:3:1021  auth psk  agent 1.2  loopback 127.77.3.9
  warning: the guest agent is older
  PORT      STATE   HOST            GUEST         PATH   PROCESS     CONNS
! 80/tcp    claim   127.0.0.1:80    [::]:80       -      -           0/0
      held by apache2[7]
! 53/udp    claim   127.0.0.1:53    [::]:53       vsock  -           0/0
      held by dnsmasq[9]; open on 127.77.3.9:53
  8080/tcp  active  localhost:8080  0.0.0.0:8080  vsock  nginx[812]  1/5
  69/udp    active  127.0.0.1:69    [::]:69       vsock  -           0/0
      127.77.3.9:69 is held by tftpd[3]
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

func TestTheHostPortIsTheLastToBeCut(t *testing.T) {
	st := status.Status{VMs: []status.VM{{Name: "dev", State: status.Connected, Forwards: []status.Forward{
		{Proto: "tcp", Port: 18080, State: status.Active, Label: "the web shop", Host: []string{"127.0.0.1:18080", "[::1]:18080", "192.168.50.1:18080"},
			Guest: []string{"0.0.0.0:18080"}, Path: "vsock", Process: "python3.13[812]", ConnectionsTotal: 12345},
	}}}}
	for _, width := range []int{45, 50, 60, 70, 80} {
		var b strings.Builder
		if err := Status(&b, st, Look{Width: width}); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(b.String(), "localhost:18080") {
			t.Errorf("in %d columns:\n%s", width, b.String())
		}
	}
}

func TestReverseRowsAndSocketsAreMarked(t *testing.T) {
	for want, f := range map[string]status.Forward{
		"8080/tcp rev": {Proto: "tcp", Port: 8080, Reverse: true}, "socket": {Proto: "unix"}, "socket rev": {Proto: "unix", Reverse: true}, "53/udp": {Proto: "udp", Port: 53},
	} {
		if got := portName(&f); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestRatesAreThoseBetweenTwoLooks(t *testing.T) {
	at := func(in, out uint64) status.Status {
		return status.Status{VMs: []status.VM{{Name: "dev", Forwards: []status.Forward{{Proto: "tcp", Port: 80, BytesIn: in, BytesOut: out}}}}}
	}
	now := at(3_000_000, 500)
	rates := RatesOf(at(1_000_000, 0), now, 2*time.Second)
	if got := rates[RateKey("dev", &now.VMs[0].Forwards[0])]; got != [2]float64{1e6, 250} {
		t.Errorf("%v", got)
	}
	if got := RatesOf(now, at(0, 0), time.Second); len(got) != 0 {
		t.Errorf("of what was opened anew: %v", got)
	}
	var b strings.Builder
	if err := Status(&b, now, Look{Rates: rates}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), "IN/S  OUT/S") || !strings.Contains(b.String(), "1 MB") || !strings.Contains(b.String(), "250 B") {
		t.Error(b.String())
	}
}
