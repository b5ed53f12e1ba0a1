package output

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/status"
)

// manyOf is a VM with healthy forwards and two claims, whose ports are the highest.
func manyOf(name string) status.VM {
	vm := status.VM{Name: name, Endpoint: "vsock:3:1021", State: status.Connected, Auth: "psk", AgentVersion: "1.2", Loopback: "127.77.3.9"}
	for port := uint16(8000); port < 8010; port++ {
		f := status.Forward{Proto: "tcp", Port: port, State: status.Active, Guest: []string{fmt.Sprintf("0.0.0.0:%d", port)},
			Host: []string{fmt.Sprintf("127.0.0.1:%d", port), fmt.Sprintf("[::1]:%d", port)}, Path: "vsock", Process: "web[812]"}
		switch port {
		case 8000:
			f.State, f.Reason = status.Ignored, "released"
		case 8008, 8009:
			f.State, f.Reason = status.Claim, "held by apache2[7]"
		}
		vm.Forwards = append(vm.Forwards, f)
	}
	return vm
}

func TestAStatusFitsWhateverTheHeight(t *testing.T) {
	st := status.Status{VMs: []status.VM{manyOf("dev")}}
	before := slices.Clone(st.VMs[0].Forwards)
	st.Config = status.Config{File: "/home/user/rum.toml", Found: true, Why: "as --config says"}
	for _, width := range []int{50, 80, 200} {
		for height := 1; height < 40; height++ {
			var b strings.Builder
			if err := Status(&b, st, Look{Width: width, Height: height}); err != nil {
				t.Fatal(err)
			}
			got := b.String()
			if n := strings.Count(got, "\n"); n > height {
				t.Errorf("%d lines of %d:\n%s", n, height, got)
			}
			if !strings.HasPrefix(got, "dev") {
				t.Errorf("the top of %d lines is lost:\n%s", height, got)
			}
			if height >= 13 && (!strings.Contains(got, "8008/tcp") || !strings.Contains(got, "8009/tcp")) {
				t.Errorf("a claim is not in %d lines:\n%s", height, got)
			}
			if height >= 13 && !strings.Contains(got, "8007/tcp") && !strings.Contains(got, "1 ignored") {
				t.Errorf("what is left out is not counted:\n%s", got)
			}
		}
	}
	if len(st.VMs[0].More) > 0 || !slices.EqualFunc(before, st.VMs[0].Forwards, func(a, b status.Forward) bool { return a.Port == b.Port }) {
		t.Errorf("the status itself was changed: %+v", st.VMs[0])
	}
}

func TestInALowTerminalEveryVMShowsItsProblems(t *testing.T) {
	var b strings.Builder
	if err := Status(&b, status.Status{VMs: []status.VM{manyOf("one"), manyOf("two")}}, Look{Width: 200, Height: 11}); err != nil {
		t.Fatal(err)
	}
	want := "and 8 more: 7 active, 1 ignored"
	if n := strings.Count(b.String(), " claim "); n != 4 || strings.Count(b.String(), want) != 2 {
		t.Errorf("%d claims, want 4, and %q twice:\n%s", n, want, b.String())
	}
}
