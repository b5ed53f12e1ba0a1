package portwatch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// Names of what tells a Watcher when to look.
const (
	// SourceEBPF are programs attached to the root cgroup.
	SourceEBPF = "ebpf"
	// SourceTracepoint is a program at the tracepoint sock:inet_sock_set_state.
	SourceTracepoint = "tracepoint"
	// SourcePoll is a clock.
	SourcePoll = "poll"
)

// Sizes of what is in the kernel: 2,700 records, and more sockets than there are
// automatic ports.
const (
	ringSize   = 64 << 10
	maxSockets = 1 << 15
)

// event says that something has happened to a socket, and that it is time to look.
type event struct {
	place
	cookie uint64 // 0 where it is not known
	opened bool   // or closed
}

// place is what the kernel is asked about at a time: a port of one protocol and family.
type place struct {
	proto  string
	family uint8
	port   uint16
}

// bpf is a set of programs in the kernel that tell of sockets.
type bpf struct {
	sockets, ring, lost *ebpf.Map
	reader              *ringbuf.Reader
	// ready is the ring buffer too. It is waited for in Go's poller: who waits in a
	// system call keeps a processor from the goroutines that announce what was found.
	ready      *os.File
	woken      atomic.Bool
	record     ringbuf.Record
	links      []link.Link
	tcp, udp   string // the sources
	lostBefore uint64
}

// bestSources are the sources of events, the best first. Without a cgroup it is the
// root one.
func bestSources(cgroup string) []func() (source, error) {
	return []func() (source, error){
		func() (source, error) { return opened(openCgroup(cgroup, ringSize)) },
		func() (source, error) { return opened(openTracepoint(ringSize)) },
	}
}

// opened makes no bpf no source.
func opened(b *bpf, err error) (source, error) {
	if b == nil {
		return nil, err
	}
	return b, err
}

// openCgroup attaches programs to a cgroup for both protocols, or for the one that the
// kernel lets it. UDP needs Linux 5.9 and TCP 5.8, and both root's capabilities. TCP is
// left to the tracepoint where that works and the cgroup does not. The first result is
// nil if nothing works; the error says what does not.
func openCgroup(cgroup string, ring int) (*bpf, error) {
	if cgroup == "" {
		var err error
		if cgroup, err = rootCgroup(); err != nil {
			return nil, err
		}
	}
	b, build, err := newBPF(ring)
	if err != nil {
		return nil, err
	}
	noUDP := b.attachUDP(build, cgroup)
	if noUDP == nil {
		b.udp = SourceEBPF
	}
	noTCP := b.attachTCP(build, cgroup)
	if noTCP == nil {
		b.tcp = SourceEBPF
	} else if err := b.attachTracepoint(build); err == nil {
		b.tcp = SourceTracepoint
	}
	err = errors.Join(noTCP, noUDP)
	if b.tcp == SourcePoll && b.udp == SourcePoll {
		return nil, errors.Join(err, b.close())
	}
	return b, err
}

// openTracepoint attaches a program to the tracepoint of TCP's states.
func openTracepoint(ring int) (*bpf, error) {
	b, build, err := newBPF(ring)
	if err != nil {
		return nil, err
	}
	if err := b.attachTracepoint(build); err != nil {
		return nil, errors.Join(err, b.close())
	}
	b.tcp = SourceTracepoint
	return b, nil
}

func newBPF(ring int) (*bpf, builder, error) {
	// Kernels before 5.11 count maps as locked memory. Where this is not allowed, the
	// limit may do all the same.
	_ = rlimit.RemoveMemlock()
	b := &bpf{tcp: SourcePoll, udp: SourcePoll}
	if err := b.makeMaps(ring); err != nil {
		return nil, builder{}, errors.Join(err, b.close())
	}
	return b, builder{ring: b.ring, lost: b.lost, sockets: b.sockets, namespace: namespaceCookie()}, nil
}

// of implements source.
func (b *bpf) of(proto string) string {
	if proto == "udp" {
		return b.udp
	}
	return b.tcp
}

func (b *bpf) makeMaps(ring int) (err error) {
	b.ring, err = ebpf.NewMap(&ebpf.MapSpec{Name: "rum_events", Type: ebpf.RingBuf, MaxEntries: uint32(ring)})
	if err != nil {
		return fmt.Errorf("make a ring buffer, which is in Linux since 5.8: %w", err)
	}
	b.lost, err = ebpf.NewMap(&ebpf.MapSpec{Name: "rum_lost", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		return fmt.Errorf("make a map: %w", err)
	}
	b.sockets, err = ebpf.NewMap(&ebpf.MapSpec{Name: "rum_sockets", Type: ebpf.LRUHash, KeySize: 8, ValueSize: 8, MaxEntries: maxSockets})
	if err != nil {
		return fmt.Errorf("make a map: %w", err)
	}
	b.reader, err = ringbuf.NewReader(b.ring)
	if err != nil {
		return fmt.Errorf("read a ring buffer: %w", err)
	}
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
func (b *bpf) attachTCP(build builder, cgroup string) error {
	err := b.attach(cgroup, build.tcp())
	if err != nil && build.namespace != 0 {
		build.namespace = 0
		err = b.attach(cgroup, build.tcp())
	}
	return err
}

// attachUDP attaches all that UDP takes, or nothing.
func (b *bpf) attachUDP(build builder, cgroup string) error {
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

func (b *bpf) attach(cgroup string, specs ...*ebpf.ProgramSpec) error {
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

func (b *bpf) attachTracepoint(build builder) error {
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

// wait implements source. What is lost is what there was no room for.
func (b *bpf) wait(deadline time.Time, events []event) (_ []event, lost bool, err error) {
	if err := b.await(deadline); err != nil {
		return events, false, fmt.Errorf("wait for events: %w", err)
	}
	for len(events) < maxBatch && b.reader.AvailableBytes() > 0 {
		if err := b.reader.ReadInto(&b.record); err != nil {
			return events, false, fmt.Errorf("read events: %w", err)
		}
		if e, ok := parseRecord(b.record.RawSample); ok {
			events = append(events, e)
		}
	}
	var n uint64
	if err := b.lost.Lookup(uint32(0), &n); err != nil {
		return events, false, fmt.Errorf("read events: %w", err)
	}
	lost = n != b.lostBefore
	b.lostBefore = n
	return events, lost, nil
}

// await returns when there is something to read, at the deadline, or when woken.
func (b *bpf) await(deadline time.Time) error {
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

func parseRecord(r []byte) (event, bool) {
	if len(r) < recordLen {
		return event{}, false
	}
	e := event{
		cookie: binary.NativeEndian.Uint64(r),
		place:  place{proto: "tcp", family: r[11], port: binary.NativeEndian.Uint16(r[8:])},
		opened: binary.NativeEndian.Uint32(r[12:]) == recordOpen,
	}
	if r[10] == unix.IPPROTO_UDP {
		e.proto = "udp"
	}
	return e, e.family == unix.AF_INET || e.family == unix.AF_INET6
}

// wake implements source.
func (b *bpf) wake() {
	b.woken.Store(true)
	_ = b.ready.SetReadDeadline(time.Now())
}

// alive reports whether the programs are still attached. Others may detach them.
func (b *bpf) alive() error {
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

// bindOf implements source.
func (b *bpf) bindOf(cookie uint64) bindKind {
	var value uint64
	if err := b.sockets.Lookup(cookie, &value); err != nil || value&sockBound == 0 || value&sockUnknown != 0 {
		return bindUnknown
	}
	if value&sockExplicit != 0 {
		return bindExplicit
	}
	return bindAutomatic
}

// tellClose implements source.
func (b *bpf) tellClose(s socket) {
	value := uint64(s.addr.Port()) | sockBound | sockUnknown
	if s.proto == "tcp" {
		value |= sockTCP
	}
	if s.family == unix.AF_INET6 {
		value |= sockV6
	}
	_ = b.sockets.Update(s.cookie, value, ebpf.UpdateNoExist) // or it is seen to go later
}

// close detaches the programs.
func (b *bpf) close() (err error) {
	for _, l := range b.links {
		err = errors.Join(err, l.Close())
	}
	if b.ready != nil {
		err = errors.Join(err, b.ready.Close())
	}
	if b.reader != nil {
		err = errors.Join(err, b.reader.Close())
	}
	for _, m := range []*ebpf.Map{b.ring, b.lost, b.sockets} {
		if m != nil {
			err = errors.Join(err, m.Close())
		}
	}
	return err
}
