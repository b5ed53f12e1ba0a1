package main

import "fmt"

// neighbours are what others say of how soon a port is there, in their documentation or by
// the constants of their sources. They are not measured here.
var neighbours = []struct{ name, when string }{
	{"Lima", "looks every 3 s (the default of its guest agent's --tick)"},
	{"Colima", "as Lima, whose guest agent it runs"},
	{"Rancher Desktop", "looks every 3 s (procNetScanInterval of its guest agent)"},
	{"VS Code, remote", "looks every 2 s or 20 times what a look takes (calculateDelay)"},
	{"Gitpod", "looks every 2 s (RefreshInterval of PollingServedPortsObserver)"},
	{"WSL2, mirrored", "bind(2) waits for the host; what is free again is seen every 0.5 s"},
	{"Podman machine", "when a container is started with -p; other programs never"},
	{"Docker Desktop", "when a container is started with -p; other programs never"},
	{"Vagrant", "when the machine is reloaded, with forwarded_port written down"},
	{"ssh -L", "when the command is given"},
}

func printNeighbours() {
	fmt.Println("\nwhat others say of themselves")
	for _, n := range neighbours {
		fmt.Printf("  %-34s %s\n", n.name, n.when)
	}
}
