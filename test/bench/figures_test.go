package main

import (
	"strings"
	"testing"
)

// What /sys/kernel/tracing/events/*/*/hist says.
const (
	packetHistogram = `# event histogram
#
# trigger info: hist:keys=op,len:vals=hitcount:sort=hitcount:size=8192 [active]
#

{ op:          7, len:          0 } hitcount:          2
{ op:          5, len:         64 } hitcount:          4
{ op:          6, len:          0 } hitcount:         12
{ op:          5, len:      32768 } hitcount:          3
{ op:          5, len:      65536 } hitcount:         10

Totals:
    Hits: 31
`
	callHistogram = `{ common_pid: bench           [       210] } hitcount:         99
{ common_pid: rum-host-agent  [       245] } hitcount:         20
{ common_pid: rum-guest-agent [       260] } hitcount:          7
`
	wakeHistogram = `{ comm: rum-guest-agent                                } hitcount:          5
{ comm: kworker/0:1                                    } hitcount:         50
`
)

func TestHistogramsOfTheKernelAreCountedByKindAndProgram(t *testing.T) {
	var c counts
	for event, text := range map[string]string{
		"vsock/virtio_transport_alloc_pkt": packetHistogram, "raw_syscalls/sys_enter": callHistogram, "sched/sched_wakeup": wakeHistogram,
	} {
		for line := range strings.Lines(text) {
			c.take(event, line)
		}
	}
	want := counts{packets: 17, bytes: 4*64 + 3*32768 + 10*65536, full: 10 * 65536, mid: 3 * 32768, low: 4 * 64, credits: 12, calls: 27, wakes: 5}
	if c != want {
		t.Errorf("%+v, want %+v", c, want)
	}
}
