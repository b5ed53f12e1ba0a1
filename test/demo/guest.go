package main

import (
	"fmt"
	"os"
	"time"

	"github.com/rum-vm/rum-agent/test/vm"
)

// port is the web server's in the guest, and the forward's on the host.
const port = 8080

// serverDelay is how long after boot the web server starts, so that the
// forward is seen to appear.
const serverDelay = 3 * time.Second

// guest is the demo's guest and how the host agent reaches it.
type guest struct {
	name        string
	endpoint    string
	config      vm.Config
	startServer string
}

// newGuest describes a guest with vsock where the host has it, else with the
// virtio-serial socket given.
func newGuest(serial string) guest {
	// Names this run's page, so that no other server's is taken for it.
	name := fmt.Sprintf("demo-%d", os.Getpid())
	g := guest{
		name:     name,
		endpoint: "serial:" + serial,
		config: vm.Config{
			Guest:        vm.Initramfs{Hostname: name, Agent: "bin/rum-guest-agent"},
			SerialSocket: serial,
		},
		startServer: fmt.Sprintf(`{ sleep %d
mkdir -p /www
cat >/www/index.html <<page
<!doctype html>
<title>$(hostname)</title>
<h1>Hello from $(hostname)</h1>
<p>Linux $(uname -r), $(date -u '+%%F %%T') UTC, up $(cut -d' ' -f1 /proc/uptime) s
page
httpd -p %d -h /www
} &`, int(serverDelay.Seconds()), port),
	}
	if vm.HasVsock() {
		// Process ids stay below 1<<22, so two demos never share a CID.
		g.config.CID = 1<<22 + uint32(os.Getpid())
		g.config.Guest.AgentArgs = []string{"--listen", "vsock"}
		g.endpoint = fmt.Sprintf("vsock:%d", g.config.CID)
	}
	return g
}
