package events

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

// Where events come from.
const (
	// EBPF are programs attached to the root cgroup.
	EBPF = "ebpf"
	// Tracepoint is a program at the tracepoint sock:inet_sock_set_state.
	Tracepoint = "tracepoint"
	// None is nowhere: who wants to know has to look.
	None = "poll"
)

const (
	// RingSize is the usual size of a ring buffer, in bytes: 2,700 records.
	RingSize = 64 << 10
	// maxSockets is more than there are automatic ports.
	maxSockets = 1 << 15
	// maxOwners is more than there are sockets between bind(2) and listen(2), and than most
	// machines have listeners: of what has to make room for others the user is not known.
	maxOwners = 1 << 13
	// maxQuiet bounds the users who are quiet at a time.
	maxQuiet = 256
)

// NoUser is the user of a socket where that is not known.
const NoUser = ^uint32(0)

// Event says that something has happened to a socket, and that it is time to look.
type Event struct {
	Proto  string // "tcp" or "udp"
	Family uint8  // unix.AF_INET or unix.AF_INET6
	Port   uint16
	Cookie uint64 // 0 where it is not known
	Opened bool   // or closed
	// User is who has bound or closed the socket, as portlist.UserOf has it, or NoUser.
	User uint32
	// Elsewhere: in another network namespace. Of what is closed there this is not always
	// known, and before Linux 5.16 of no TCP socket.
	Elsewhere bool
}

// Bind is how a UDP socket came to its port: a server asks for one, a client takes what the
// kernel gives.
type Bind uint8

// Ways to a port.
const (
	BindUnknown Bind = iota
	BindExplicit
	BindAutomatic
)

// maxBatch bounds the events that are taken in before the next look.
const maxBatch = 1024

// Lost says that more has happened than is known.
type Lost struct {
	// Any: of what anybody may have done. OfQuiet: of what quiet users have done.
	Any, OfQuiet bool
}

// Programs is a set of programs in the kernel that tell of sockets.
type Programs struct {
	ring, quietRing, lost  *ebpf.Map
	sockets, owners, quiet *ebpf.Map
	reader, quietReader    *ringbuf.Reader
	// ready is the ring buffer too. It is waited for in Go's poller: who waits in a
	// system call keeps a processor from the goroutines that announce what was found.
	ready      *os.File
	woken      atomic.Bool
	record     ringbuf.Record
	links      []link.Link
	tcp, udp   string // the sources
	lostBefore [lostLen / 8]uint64
}

// Options are how to watch. The zero value is for this network namespace, by the root cgroup.
type Options struct {
	// Cgroup is a directory; empty for the root cgroup.
	Cgroup string
	// Ring is the size of the ring buffer in bytes, a power of two; 0 for RingSize.
	Ring int
	// Elsewhere: what happens in other network namespaces is told of too.
	Elsewhere bool
}

// OpenCgroup attaches programs to a cgroup for both protocols, or for the one that the
// kernel lets it. UDP needs Linux 5.9 and TCP 5.8, and both root's capabilities. TCP is
// left to the tracepoint where that works and the cgroup does not. Before Linux 5.11 maps
// are locked memory, of which the process has to be allowed enough (RLIMIT_MEMLOCK). The
// first result is nil if nothing works; the error says what does not.
func OpenCgroup(o Options) (*Programs, error) {
	cgroup := o.Cgroup
	if cgroup == "" {
		var err error
		if cgroup, err = rootCgroup(); err != nil {
			return nil, err
		}
	}
	b, build, err := load(o)
	if err != nil {
		return nil, err
	}
	noUDP := b.attachUDP(build, cgroup)
	if noUDP == nil {
		b.udp = EBPF
	}
	noTCP := b.attachTCP(build, cgroup)
	if noTCP == nil {
		b.tcp = EBPF
	} else if err := b.attachTracepoint(build); err == nil {
		b.tcp = Tracepoint
	}
	err = errors.Join(noTCP, noUDP)
	if b.tcp == None && b.udp == None {
		return nil, errors.Join(err, b.Close())
	}
	return b, err
}

// OpenTracepoint attaches a program to the tracepoint of TCP's states.
func OpenTracepoint() (*Programs, error) {
	b, build, err := load(Options{})
	if err != nil {
		return nil, err
	}
	if err := b.attachTracepoint(build); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	b.tcp = Tracepoint
	return b, nil
}

func load(o Options) (*Programs, builder, error) {
	b := &Programs{tcp: None, udp: None}
	if err := b.makeMaps(cmp.Or(o.Ring, RingSize)); err != nil {
		return nil, builder{}, errors.Join(err, b.Close())
	}
	return b, builder{
		ring: b.ring, quietRing: b.quietRing, lost: b.lost, sockets: b.sockets, owners: b.owners, quiet: b.quiet, namespace: namespaceCookie(), elsewhere: o.Elsewhere,
	}, nil
}

// Of is where the events of a protocol come from: [EBPF], [Tracepoint] or [None].
func (b *Programs) Of(proto string) string {
	if proto == "udp" {
		return b.udp
	}
	return b.tcp
}

func (b *Programs) makeMaps(ring int) (err error) {
	for _, m := range []struct {
		to   **ebpf.Map
		spec ebpf.MapSpec
	}{
		{&b.ring, ebpf.MapSpec{Name: "rum_events", Type: ebpf.RingBuf, MaxEntries: uint32(ring)}},
		{&b.quietRing, ebpf.MapSpec{Name: "rum_quiet_events", Type: ebpf.RingBuf, MaxEntries: uint32(ring)}},
		{&b.lost, ebpf.MapSpec{Name: "rum_lost", Type: ebpf.Array, KeySize: 4, ValueSize: lostLen, MaxEntries: 1}},
		{&b.sockets, ebpf.MapSpec{Name: "rum_sockets", Type: ebpf.LRUHash, KeySize: 8, ValueSize: 8, MaxEntries: maxSockets}},
		{&b.owners, ebpf.MapSpec{Name: "rum_owners", Type: ebpf.LRUHash, KeySize: 8, ValueSize: 4, MaxEntries: maxOwners}},
		{&b.quiet, ebpf.MapSpec{Name: "rum_quiet", Type: ebpf.Hash, KeySize: 4, ValueSize: 4, MaxEntries: maxQuiet}},
	} {
		if *m.to, err = ebpf.NewMap(&m.spec); err != nil {
			return fmt.Errorf("make the map %s (ring buffers are in Linux since 5.8): %w", m.spec.Name, err)
		}
	}
	b.reader, err = ringbuf.NewReader(b.ring)
	if err == nil {
		b.quietReader, err = ringbuf.NewReader(b.quietRing)
	}
	if err != nil {
		return fmt.Errorf("read a ring buffer: %w", err)
	}
	b.quietReader.SetDeadline(time.Unix(0, 1)) // no wait: nothing would end it
	fd, err := unix.FcntlInt(uintptr(b.ring.FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		err = unix.SetNonblock(fd, true) // which is what makes it wait in the poller
	}
	if err == nil {
		b.ready = os.NewFile(uintptr(fd), "ring buffer")
		err = b.ready.SetReadDeadline(time.Time{})
	}
	if err != nil {
		return fmt.Errorf("wait for a ring buffer: %w", err)
	}
	return nil
}

// attachTCP attaches the sock_ops program. It can tell namespaces apart since Linux 5.16.
func (b *Programs) attachTCP(build builder, cgroup string) error {
	err := b.attach(cgroup, build.tcp())
	if err != nil && build.namespace != 0 {
		build.namespace = 0
		err = b.attach(cgroup, build.tcp())
	}
	return err
}

// attachUDP attaches all that UDP takes, or nothing.
func (b *Programs) attachUDP(build builder, cgroup string) error {
	before := len(b.links)
	err := b.attach(cgroup,
		// Backwards, so that what is told of is also told to go.
		build.release(),
		build.bound(ebpf.AttachCGroupInet4PostBind), build.bound(ebpf.AttachCGroupInet6PostBind),
		build.bind(ebpf.AttachCGroupInet4Bind), build.bind(ebpf.AttachCGroupInet6Bind))
	if err != nil {
		for _, l := range b.links[before:] {
			_ = l.Close()
		}
		b.links = b.links[:before]
	}
	return err
}

func (b *Programs) attach(cgroup string, specs ...*ebpf.ProgramSpec) error {
	for _, spec := range specs {
		prog, err := ebpf.NewProgram(spec)
		if err != nil {
			return fmt.Errorf("load program %s: %w", spec.Name, err)
		}
		l, err := link.AttachCgroup(link.CgroupOptions{Path: cgroup, Attach: spec.AttachType, Program: prog})
		_ = prog.Close() // the link holds it
		if err != nil {
			return fmt.Errorf("attach program %s to %s: %w", spec.Name, cgroup, err)
		}
		b.links = append(b.links, l)
	}
	return nil
}

func (b *Programs) attachTracepoint(build builder) error {
	spec := build.tracepoint()
	prog, err := ebpf.NewProgram(spec)
	if err != nil {
		return fmt.Errorf("load program %s: %w", spec.Name, err)
	}
	defer prog.Close()
	l, err := link.Tracepoint("sock", "inet_sock_set_state", prog, nil)
	if err != nil {
		return fmt.Errorf("attach program %s to its tracepoint: %w", spec.Name, err)
	}
	b.links = append(b.links, l)
	return nil
}

// namespaceCookie tells this network namespace from others; 0 where the kernel, before
// 5.14, does not say.
func namespaceCookie() uint64 {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return 0
	}
	return cookie
}

// Wait appends what has happened to events, once something has that no quiet user has done,
// at the deadline, or when woken. What quiet users have done is among it.
func (b *Programs) Wait(deadline time.Time, events []Event) (_ []Event, lost Lost, err error) {
	if err := b.await(deadline); err != nil {
		return events, lost, fmt.Errorf("wait for events: %w", err)
	}
	for _, from := range []*ringbuf.Reader{b.reader, b.quietReader} {
		for len(events) < maxBatch && from.AvailableBytes() > 0 {
			err := from.ReadInto(&b.record)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break // of the next one only the place is there yet
			}
			if err != nil {
				return events, lost, fmt.Errorf("read events: %w", err)
			}
			if e, ok := parseRecord(b.record.RawSample); ok {
				events = append(events, e)
			}
		}
	}
	var n [lostLen / 8]uint64
	if err := b.lost.Lookup(uint32(0), &n); err != nil {
		return events, lost, fmt.Errorf("read events: %w", err)
	}
	lost = Lost{Any: n[lostOfAll/8] != b.lostBefore[lostOfAll/8], OfQuiet: n[lostOfQuiet/8] != b.lostBefore[lostOfQuiet/8]}
	b.lostBefore = n
	return events, lost, nil
}

// SetQuiet says whether what a user does ends a Wait. Who is one of very many is not quiet.
func (b *Programs) SetQuiet(user uint32, quiet bool) {
	if quiet {
		_ = b.quiet.Put(user, uint32(1))
	} else {
		_ = b.quiet.Delete(user)
	}
}

// await returns when there is something to read, at the deadline, or when woken.
func (b *Programs) await(deadline time.Time) error {
	if err := b.ready.SetReadDeadline(deadline); err != nil {
		return err
	}
	if b.woken.Swap(false) {
		return nil
	}
	raw, err := b.ready.SyscallConn()
	if err != nil {
		return err
	}
	err = raw.Read(func(uintptr) bool { return b.reader.AvailableBytes() > 0 })
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}

func parseRecord(r []byte) (Event, bool) {
	if len(r) < recordLen {
		return Event{}, false
	}
	e := Event{
		Proto: "tcp", Family: r[11] &^ (recordElsewhere | recordClosed), Port: binary.NativeEndian.Uint16(r[8:]), Cookie: binary.NativeEndian.Uint64(r),
		Opened: r[11]&recordClosed == 0, Elsewhere: r[11]&recordElsewhere != 0, User: binary.NativeEndian.Uint32(r[12:]),
	}
	if r[10] == unix.IPPROTO_UDP {
		e.Proto = "udp"
	}
	return e, e.Family == unix.AF_INET || e.Family == unix.AF_INET6
}

// Wake ends a wait, now or the next one.
func (b *Programs) Wake() {
	b.woken.Store(true)
	_ = b.ready.SetReadDeadline(time.Now())
}

// Alive reports whether the programs are still attached. Others may detach them.
func (b *Programs) Alive() error {
	for _, l := range b.links {
		info, err := l.Info()
		if err != nil {
			continue // not every kind of link knows
		}
		if c := info.Cgroup(); c != nil && c.CgroupId == 0 {
			return errors.New("somebody has detached a program from its cgroup")
		}
	}
	return nil
}

// BindOf says how a UDP socket came to its port.
func (b *Programs) BindOf(cookie uint64) Bind {
	var value uint64
	if err := b.sockets.Lookup(cookie, &value); err != nil || value&sockBound == 0 || value&sockUnknown != 0 {
		return BindUnknown
	}
	if value&sockExplicit != 0 {
		return BindExplicit
	}
	return BindAutomatic
}

// TellClose asks for an event when a socket of a user goes whose beginning there was none
// for.
func (b *Programs) TellClose(proto string, family uint8, port uint16, cookie uint64, user uint32) {
	value := uint64(port) | sockBound | sockUnknown | uint64(user)<<32
	if proto == "tcp" {
		value |= sockTCP
	}
	if family == unix.AF_INET6 {
		value |= sockV6
	}
	_ = b.sockets.Update(cookie, value, ebpf.UpdateNoExist) // or it is seen to go later
}

// Close detaches the programs.
func (b *Programs) Close() (err error) {
	for _, l := range b.links {
		err = errors.Join(err, l.Close())
	}
	if b.ready != nil {
		err = errors.Join(err, b.ready.Close())
	}
	for _, r := range []*ringbuf.Reader{b.reader, b.quietReader} {
		if r != nil {
			err = errors.Join(err, r.Close())
		}
	}
	for _, m := range []*ebpf.Map{b.ring, b.quietRing, b.lost, b.sockets, b.owners, b.quiet} {
		if m != nil {
			err = errors.Join(err, m.Close())
		}
	}
	return err
}
