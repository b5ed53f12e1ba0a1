package vmflag

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestVMFlag(t *testing.T) {
	key := filepath.Join(t.TempDir(), "a,b")
	if err := os.WriteFile(key, []byte(strings.Repeat("ab", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		in, name, endpoint, bridge string
		key                        bool
	}{
		{in: "dev=vsock:3", name: "dev", endpoint: "vsock:3:1021"},
		{in: "dev=vsock:3,bridge=192.168.50.101", name: "dev", endpoint: "vsock:3:1021", bridge: "192.168.50.101"},
		{in: "dev=vsock:3,bridge=fd00::1,key=" + key, name: "dev", endpoint: "vsock:3:1021", bridge: "fd00::1", key: true},
		{in: "dev=vsock:3,key=" + key + ",bridge=10.0.0.1", name: "dev", endpoint: "vsock:3:1021", bridge: "10.0.0.1", key: true},
		{in: "d v=exec:ssh -o A=b,c box rum-guest-agent --stdio", name: "d v", endpoint: "exec:ssh -o A=b,c box rum-guest-agent --stdio"},
		{in: "dev=unix:/run/a,b", name: "dev", endpoint: "unix:/run/a,b"},
		{in: "dev=exec:qemu -nic tap,bridge=br0,id=x", name: "dev", endpoint: "exec:qemu -nic tap,bridge=br0,id=x"},
		{in: "dev=exec:echo a,bridge=10.0.0.1,x", name: "dev", endpoint: "exec:echo a,bridge=10.0.0.1,x"},
		{in: "dev=exec:a,b=c,keyy=/k,key=" + key, name: "dev", endpoint: "exec:a,b=c,keyy=/k", key: true},
		{in: "dev=exec:mount -o a,key=/k,b=c /x", name: "dev", endpoint: "exec:mount -o a,key=/k,b=c /x"},
		{in: "dev=exec:a,b=c,bridge=10.0.0.1", name: "dev", endpoint: "exec:a,b=c", bridge: "10.0.0.1"},
	} {
		vm, err := Parse(test.in)
		if err != nil {
			t.Errorf("%s: %v", test.in, err)
			continue
		}
		bridge := ""
		if vm.Bridge != (netip.Addr{}) {
			bridge = vm.Bridge.String()
		}
		if vm.Name != test.name || vm.Endpoint.String() != test.endpoint || bridge != test.bridge || (vm.Key != nil) != test.key {
			t.Errorf("%s: %+v", test.in, vm)
		}
	}
}

func TestBadVMFlagSaysWhatIsWrong(t *testing.T) {
	for in, want := range map[string]string{
		"dev":                                 "want NAME=ENDPOINT",
		"=vsock:3":                            "name is empty",
		"a\x1bb=vsock:3":                      "cannot be printed",
		strings.Repeat("x", 200) + "=vsock:3": "longer than 128",
		"dev=vsock:3,bridge=":                 `bridge "" is not an IP address`,
		"dev=vsock:3,bridge=0.0.0.0":          "not the address of a VM",
		"dev=vsock:3,bridge=10.0.0.1,bridge=10.0.0.2": "bridge is given twice",
		"dev=vsock:3,brigde=10.0.0.1":                 `unknown option "brigde": after the endpoint come ,bridge=IP and ,key=FILE`,
		"dev=vsock:3,key=/no/such/file":               "/no/such/file",
	} {
		if _, err := Parse(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", in, err, want)
		}
	}
}

// TestAMisspeltOptionIsNoPartOfThePath: as a part of it, nobody would ask for the key.
func TestAMisspeltOptionIsNoPartOfThePath(t *testing.T) {
	for _, in := range []string{
		"dev=unix:/x,keyy=/k", "dev=unix:/x,key", "dev=unix:/x,", "dev=unix:/x, key=/k", "dev=unix:/x,KEY=/k", "dev=unix:/x,=/k", "dev=unix:/x,keyy=/k,bridge=10.0.0.1",
		"dev=hybrid:/x:5,keyy=/k", "dev=serial:/x,keyy=/k", "dev=unix:/x,bridge=10.0.0.1,keyy=/k",
	} {
		if vm, err := Parse(in); err == nil || !strings.Contains(err.Error(), "unknown option") {
			t.Errorf("%q: %+v, %v", in, vm, err)
		}
	}
}

func FuzzVMFlag(f *testing.F) {
	f.Add("dev=vsock:3,bridge=10.0.0.1,key=/x")
	f.Add("dev=exec:a,b")
	f.Add(",key=,bridge==")
	f.Fuzz(func(t *testing.T, s string) {
		if strings.Contains(s, ",key=") {
			return // it would read files
		}
		vm, err := Parse(s)
		if err == nil && (vm.Name == "" || vm.Endpoint.Scheme == "") {
			t.Errorf("%q gives %+v", s, vm)
		}
	})
}
