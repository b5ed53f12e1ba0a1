package main

import (
	"testing"

	"github.com/rum-vm/rum-agent/tunnel/endpoint"
)

// Agents of tests, of containers and behind ssh share this file with their host.
func TestOnlyRootOfAVMWritesNamesUnasked(t *testing.T) {
	for _, row := range []struct {
		listen []string
		hosts  string
		root   bool
		want   string
	}{
		{[]string{"vsock"}, "", true, "/etc/hosts"},
		{[]string{"serial:/dev/virtio-ports/rum.agent.0"}, "", true, "/etc/hosts"},
		{[]string{"vsock"}, "", false, ""},
		{[]string{"vsock"}, "none", true, ""},
		{[]string{"unix:/run/agent.sock"}, "", true, ""},
		{[]string{"serial:/dev/pts/3"}, "", true, ""},
		{nil, "", true, ""}, // --stdio
		{[]string{"unix:/run/agent.sock"}, "/tmp/hosts", false, "/tmp/hosts"},
	} {
		var endpoints []endpoint.Endpoint
		for _, l := range row.listen {
			e, err := endpoint.ParseListen(l)
			if err != nil {
				t.Fatal(err)
			}
			endpoints = append(endpoints, e)
		}
		o := options{hosts: row.hosts}
		if got := o.hostsKept(endpoints, row.root); got != row.want {
			t.Errorf("%v, root %v, --hosts %q: %q, want %q", row.listen, row.root, row.hosts, got, row.want)
		}
	}
}
