package metrics

import (
	"iter"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	hostagent "github.com/rum-vm/rum-agent/agent-host"
	"github.com/rum-vm/rum-agent/agent-host/forward/serve"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/tunnel/latency"
)

// States that there is a series for, also where nothing is in one: what appears with the value 1 is no increase.
var (
	vmStates      = []string{status.Connected, status.Connecting, status.Paused, status.Down, status.Incompatible}
	forwardStates = []string{status.Active, status.Claim, status.Denied, status.Ignored}
)

var (
	ofAgent = []string{"version"}
	ofVM    = []string{"vm"}
	ofPort  = []string{"vm", "proto", "port"}
)

// What there is of the agent, of each VM, and of each port.
var (
	agentInfo = desc("agent_info", "Always 1; the label has the agent's version.", ofAgent)

	vmState    = desc("vm_state", "1 for the state that the VM is in, 0 for the others.", ofVM, "state")
	reconnects = desc("vm_reconnects_total", "Links to the guest agent after the first one.", ofVM)
	forwards   = desc("vm_forwards", "Ports of the VM by state; those that wait for an address of the host are in the state claim.", ofVM, "state")
	detections = desc("vm_detection_seconds", "From when the guest announced a port until its listener on the host was open.", ofVM)
	summed     = desc("vm_summed_ports", "Ports of the VM that are summed under the port other, for want of series.", ofVM)

	portOpen    = desc("port_open", "1 if every host address of the port listens, 0 if not; one that was given back with release does not count.", ofPort)
	active      = desc("port_connections", "Connections, or UDP flows, that there are.", ofPort)
	connections = desc("port_connections_total", "Connections, or UDP flows, that there were.", ofPort)
	traffic     = desc("port_bytes_total", "Bytes carried, in from the guest to clients and out from clients to the guest.", ofPort, "direction")
	failures    = desc("port_errors_total", "Connections that were not what they should have been, by what went wrong.", ofPort, "kind")
	dropped     = desc("port_datagrams_dropped_total", "UDP datagrams lost on the way, in either direction.", ofPort)
	dials       = desc("port_dial_seconds", "From the request for a connection until the service in the guest had taken it.", ofPort)
)

func desc(name, help string, labels []string, more ...string) *prometheus.Desc {
	return prometheus.NewDesc("rum_"+name, help, append(labels[:len(labels):len(labels)], more...), nil)
}

// Collector is what an agent measures, as a [prometheus.Collector].
type Collector struct {
	// Version is the agent's.
	Version string
	// Measure tells what there is to measure. It must not block.
	Measure func() iter.Seq[hostagent.Measured]

	mu  sync.Mutex // held while series are chosen
	vms map[string]*ports
}

// Describe is of [prometheus.Collector].
func (c *Collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{agentInfo, vmState, reconnects, forwards, detections, summed,
		portOpen, active, connections, traffic, failures, dropped, dials} {
		out <- d
	}
}

// Collect is of [prometheus.Collector].
func (c *Collector) Collect(to chan<- prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := sink(to)
	out.gauge(agentInfo, 1, c.Version)
	vms := make(map[string]*ports)
	for m := range c.Measure() {
		p := c.vms[m.VM]
		if p == nil {
			p = newPorts()
		}
		vms[m.VM] = p
		p.update(m.Ports)
		out.vm(&m, len(p.summed))
		vm := strings.ToValidUTF8(m.VM, "�")
		for l, g := range p.own {
			out.port(g, vm, l)
			out.gauge(portOpen, truth(g.open), vm, l.proto, l.port())
		}
		for l, g := range p.sums {
			out.port(g, vm, l)
		}
	}
	c.vms = vms
}

// sink takes metrics.
type sink chan<- prometheus.Metric

func (out sink) vm(m *hostagent.Measured, sums int) {
	vm := strings.ToValidUTF8(m.VM, "�")
	for _, s := range vmStates {
		out.gauge(vmState, truth(s == m.State), vm, s)
	}
	out.counter(reconnects, max(m.Links, 1)-1, vm)
	for _, s := range forwardStates {
		out.gauge(forwards, float64(m.Forwards[s]), vm, s)
	}
	var l took
	l.add(m.Detections)
	out.histogram(detections, &l, vm)
	out.gauge(summed, float64(sums), vm)
}

func (out sink) port(g *group, vm string, l label) {
	t, now := g.totals()
	labels := []string{vm, l.proto, l.port()}
	out.gauge(active, float64(now), labels...)
	out.counter(connections, t.connections, labels...)
	out.counter(traffic, t.in, append(labels, "in")...)
	out.counter(traffic, t.out, append(labels, "out")...)
	for i, n := range t.errors {
		out.counter(failures, n, append(labels, serve.Kinds[i])...)
	}
	if l.proto == "udp" {
		out.counter(dropped, t.dropped, labels...)
	} else {
		out.histogram(dials, &t.dials, labels...)
	}
}

func (out sink) gauge(d *prometheus.Desc, v float64, labels ...string) {
	out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (out sink) counter(d *prometheus.Desc, n uint64, labels ...string) {
	out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
}

func (out sink) histogram(d *prometheus.Desc, l *took, labels ...string) {
	buckets := make(map[float64]uint64, len(l.atMost))
	for i, n := range l.atMost {
		buckets[latency.Bounds[i].Seconds()] = n
	}
	out <- prometheus.MustNewConstHistogram(d, l.all, l.sum.Seconds(), buckets, labels...)
}

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
