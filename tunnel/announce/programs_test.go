package announce

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"github.com/rum-vm/rum-agent/tunnel/wire"
)

// listenersOf are listeners of one process, on as many ports.
func listenersOf(process string, p portlist.Program, ports ...uint16) (ls []portlist.Listener) {
	for _, port := range ports {
		ls = append(ls, portlist.Listener{Proto: "tcp", Addr: netip.AddrPortFrom(netip.IPv6Loopback(), port), Process: process, Program: p})
	}
	return ls
}

func TestAProgramReachesTheHostWithAllListenersOfItsProcess(t *testing.T) {
	shop := portlist.NewProgram("node server.js --port 3000", "/home/ann/src/shop", "/home/ann")
	moved := portlist.NewProgram("node server.js --port 3000", "/home/ann/src/blog", "/home/ann")
	first := append(listenersOf("node[9]", shop, 3000, 3001), listenersOf("sshd[1]", portlist.Program{}, 22)...)
	a := told(t, &wire.SnapshotMessage{Generation: 1, Listeners: first, Skipped: sampleSkipped},
		&wire.DeltaMessage{From: 1, To: 2, Removed: first[1:2], Added: listenersOf("node[9]", moved, 3002)}).Announcement()
	want := map[uint16]portlist.Program{22: {}, 3000: shop, 3002: moved}
	for _, l := range a.Listeners {
		if p, ok := want[l.Addr.Port()]; !ok || p != l.Program {
			t.Errorf("port %d: %#v of %s", l.Addr.Port(), l.Program.Command(), l.Program.Dir())
		}
	}
	if len(a.Listeners) != len(want) {
		t.Errorf("%d listeners", len(a.Listeners))
	}
}

func TestWhatAGuestSaysOfAProgramIsChecked(t *testing.T) {
	for _, row := range []struct{ name, dir, want string }{
		{"relative", "src/shop", ""},
		{"with a way up", "/home/ann/../root", ""},
		{"with a slash at the end", "/home/ann/", ""},
		{"with control characters", "/srv/a\x1b[2J", "/srv/a?[2J"},
		{"the root", "/", "/"},
	} {
		p := portlist.NewProgram("sh -c \x00\xff", row.dir, row.dir)
		got := told(t, &wire.SnapshotMessage{Generation: 1, Listeners: listenersOf("sh[9]", p, 80)}).Announcement().Listeners[0].Program
		if got.Dir() != row.want || got.Home() != row.want || got.Command() != "sh -c ??" {
			t.Errorf("%s: %q, %q, %q", row.name, got.Dir(), got.Home(), got.Command())
		}
	}
}

// As many processes as there can be, each with the longest of everything: the message
// that tells of all of them at once, and that all others are gone.
func TestLongCommandLinesNeitherFillAMessageNorCrowdOutShortOnes(t *testing.T) {
	long := strings.Repeat("x", portlist.MaxDirectory-1)
	var ls, gone []portlist.Listener
	for i := range wire.MaxListeners {
		p := portlist.NewProgram(long, "/"+long, "/"+long)
		process := fmt.Sprintf("%s[%d]", strings.Repeat("n", 64), i)
		if i == wire.MaxListeners/2 {
			p = portlist.NewProgram("vite", "/srv/shop", "")
		}
		l := listenersOf(process, p, uint16(1+i))
		l[0].Interface = "enp0s31f6abcdef"
		ls = append(ls, l...)
		gone = append(gone, listenersOf("", portlist.Program{}, uint16(10000+i))...)
	}
	for _, m := range []wire.Message{
		&wire.SnapshotMessage{Generation: 2, Listeners: ls},
		&wire.DeltaMessage{From: 1, To: 2, Removed: gone, Added: ls},
	} {
		b := encoded(m)
		if len(b) > wire.MaxMessage {
			t.Errorf("%T: %d bytes", m, len(b))
		}
		got, err := wire.DecodeMessage(b)
		if err != nil {
			t.Fatal(err)
		}
		all := ls
		switch m := got.(type) {
		case *wire.SnapshotMessage:
			all = m.Listeners
		case *wire.DeltaMessage:
			all = m.Added
		}
		bytes, short := 0, false
		for _, l := range all {
			bytes += len(l.Program.Command()) + len(l.Program.Dir()) + len(l.Program.Home())
			short = short || l.Program.Command() == "vite"
		}
		if !short || bytes == 0 || bytes > 192<<10 {
			t.Errorf("%T: %d bytes of programs, the short one is there: %v", m, bytes, short)
		}
	}
}

// An agent of before sent listeners alone, and so does one that knows of no program.
func TestWithoutProgramsAMessageIsAsBefore(t *testing.T) {
	l := listenersOf("node[9]", portlist.Program{}, 3000)
	was := len(encoded(&wire.SnapshotMessage{Generation: 1, Listeners: l}))
	if want := 1 + 8 + 2 + 2 + 1 + 19 + 2 + len("node[9]") + 2 + 1 + 8 + 4; was != want {
		t.Errorf("%d bytes, want %d", was, want)
	}
}

// Each message keeps to its bound; what they bring together has one too.
func TestWhatIsSaidOfProcessesHasABoundHoweverManyMessagesBringIt(t *testing.T) {
	web := portlist.NewProgram("vite --port 3000", "/home/ann/src/shop", "/home/ann")
	messages := []wire.Message{&wire.SnapshotMessage{Generation: 1, Listeners: listenersOf("node[9]", web, 3000)}}
	for i := range 40 {
		var added []portlist.Listener
		for j := range 100 {
			port := 10_000 + 100*i + j
			name := fmt.Sprintf("%s[%d]", strings.Repeat("x", 80), port)
			added = append(added, listenersOf(name, portlist.NewProgram(strings.Repeat("y", 200)+fmt.Sprint(port), "/", ""), uint16(port))...)
		}
		messages = append(messages, &wire.DeltaMessage{From: uint64(1 + i), To: uint64(2 + i), Added: added})
	}
	bytes := 0
	for _, l := range told(t, messages...).Announcement().Listeners {
		bytes += len(l.Process) + l.Program.Len()
		if l.Addr.Port() == 3000 && (l.Process != "node[9]" || l.Program != web) {
			t.Errorf("of whoever has a name and a command line of the usual length is known %q, %q", l.Process, l.Program.Command())
		}
	}
	if bytes > 128<<10 {
		t.Errorf("%d bytes are kept", bytes)
	}
}
