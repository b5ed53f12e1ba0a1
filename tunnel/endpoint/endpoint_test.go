package endpoint_test

import (
	"strings"
	"testing"

	"github.com/rum-vm/rum-agent/tunnel/endpoint"
)

func TestEndpointsReadAndWriteTheSame(t *testing.T) {
	for text, want := range map[string]endpoint.Endpoint{
		"vsock:3":                    {Scheme: "vsock", CID: 3, Port: 1021},
		"vsock:4294967294:99":        {Scheme: "vsock", CID: 4294967294, Port: 99},
		"hybrid:/run/v.sock":         {Scheme: "hybrid", Path: "/run/v.sock", Port: 1021},
		"hybrid:/run/a:b.sock:52":    {Scheme: "hybrid", Path: "/run/a:b.sock", Port: 52},
		"unix:/run/agent.sock":       {Scheme: "unix", Path: "/run/agent.sock"},
		"serial:/run/vm.sock":        {Scheme: "serial", Path: "/run/vm.sock"},
		"exec:ssh box rum --stdio":   {Scheme: "exec", Command: "ssh box rum --stdio"},
		"exec:docker exec -i a:b, c": {Scheme: "exec", Command: "docker exec -i a:b, c"},
	} {
		got, err := endpoint.Parse(text)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", text, got, err, want)
		}
		if again, err := endpoint.Parse(got.String()); err != nil || again != want {
			t.Errorf("%s is written %s, which reads as %+v, %v", text, got, again, err)
		}
	}
}

func TestABadEndpointSaysWhatIsWanted(t *testing.T) {
	for text, part := range map[string]string{
		"":                  "vsock:CID",
		"vsock":             "vsock:CID",
		"vsock:x":           `CID "x" is not a number`,
		"vsock:0":           "CID",
		"vsock:2":           "host itself",
		"vsock:-1":          "CID",
		"vsock:3:0":         "port",
		"vsock:3:1:2":       "port",
		"hybrid::52":        "path",
		"tcp:1.2.3.4":       `unknown kind "tcp"`,
		"unix:":             "vsock:CID",
		"vsock:99999999999": "CID",
	} {
		if _, err := endpoint.Parse(text); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%q: %v, want an error with %q", text, err, part)
		}
	}
	for _, text := range []string{"", "vsock:", "vsock:x", "exec:a", "hybrid:/x", "unix:", "serial:"} {
		if _, err := endpoint.ParseListen(text); err == nil {
			t.Errorf("%q was taken for a place to listen", text)
		}
	}
}

func FuzzEndpoint(f *testing.F) {
	for _, s := range []string{"vsock:3", "vsock:3:99", "hybrid:/run/v.sock:52", "unix:/run/a", "serial:/dev/x", "exec:ssh box rum-guest-agent --stdio"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e, err := endpoint.Parse(s)
		if err != nil {
			return
		}
		again, err := endpoint.Parse(e.String())
		if err != nil || again != e {
			t.Fatalf("%q is %+v, which is written %q and read as %+v, %v", s, e, e.String(), again, err)
		}
	})
}
