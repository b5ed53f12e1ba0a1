package events

import (
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"golang.org/x/sys/unix"
)

// The programs that run in the kernel, written in its instructions, so that nothing
// has to be compiled for the kernel at hand. Each writes records of recordLen bytes
// into one ring buffer:
//
//	0  cookie of the socket, 0 where the program cannot know it
//	8  port, in the machine's byte order
//	10 protocol: IPPROTO_TCP or IPPROTO_UDP
//	11 family: AF_INET or AF_INET6, with recordElsewhere in another network namespace, and
//	   with recordClosed when the socket goes
//	12 user, NoUser where the program cannot know it
//
// What the users in the map of quiet ones do goes into a second ring buffer, which wakes
// nobody. A record that finds no room is counted in the map of lost ones. UDP sockets are
// also kept in a map by cookie, since the program that sees a socket go may not read its
// port, and the one that sees it bound does not see what was asked for. Closing a
// socket that is not in that map tells nobody. Whose a TCP socket is that was bound is in a
// map too, since the program that sees it listen is not told.
const (
	recordLen = 16

	recordElsewhere = 0x80
	recordClosed    = 0x40
)

// What the map of sockets says of one, besides the port it has or asks for in the lowest
// 16 bits and the user in the highest 32.
const (
	// sockBound: it has the port; without, it asks for it.
	sockBound = 1 << 16
	// sockExplicit: the port is the one that was asked for, not the kernel's choice.
	sockExplicit = 1 << 17
	// sockUnknown: it is older than the programs, and nobody knows.
	sockUnknown = 1 << 18
	// sockTCP: it is a TCP listener older than the programs.
	sockTCP = 1 << 19
	// sockV6: its family is AF_INET6.
	sockV6 = 1 << 20
)

// stateListen is TCP_LISTEN of include/net/tcp_states.h.
const stateListen = 10

// Operations and the flag of sock_ops programs (include/uapi/linux/bpf.h).
const (
	opPassiveEstablished = 5
	opState              = 10
	opListen             = 11
	flagState            = 1 << 2
)

// Offsets in struct bpf_sock_ops, struct bpf_sock, struct bpf_sock_addr
// (include/uapi/linux/bpf.h), and in the record of the tracepoint
// sock:inet_sock_set_state (include/trace/events/sock.h).
const (
	opsOp, opsArg0, opsFamily, opsLocalPort, opsFlags = 0, 4, 20, 68, 84
	sockFamily, sockProtocol, sockPort, sockState     = 4, 12, 44, 72
	askedPort, askedProtocol                          = 24, 36
	traceOld, traceNew, tracePort, traceFamily        = 16, 20, 24, 28
)

// Places on the stack of a program.
const (
	stackRecord = -recordLen
	stackKey    = stackRecord - 8
	stackValue  = stackKey - 8

	stackUser = stackRecord + 12
)

// ringNoWakeup is BPF_RB_NO_WAKEUP (include/uapi/linux/bpf.h).
const ringNoWakeup = 1

// Places in the value of the map of lost records.
const (
	lostOfAll   = 0
	lostOfQuiet = 8
	lostLen     = 16
)

// builder puts programs together that use the same maps.
type builder struct {
	ring, quietRing, lost, sockets, owners, quiet *ebpf.Map
	// namespace is the cookie of the only network namespace that is told of; 0 for
	// all of them.
	namespace uint64
	// elsewhere: what happens in others is told of too, and marked.
	elsewhere bool
}

// ours leaves out what happens in other network namespaces, or marks it in R8, where the
// family is. The context is in R6.
func (b builder) ours() asm.Instructions {
	if b.namespace == 0 {
		return nil
	}
	compare := asm.Instructions{
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.FnGetNetnsCookie.Call(),
		asm.LoadImm(asm.R1, int64(b.namespace), asm.DWord),
	}
	if !b.elsewhere {
		return append(compare, asm.JNE.Reg(asm.R0, asm.R1, "out"))
	}
	return append(compare,
		asm.JEq.Reg(asm.R0, asm.R1, "here"),
		asm.Or.Imm(asm.R8, recordElsewhere),
		asm.Mov.Reg(asm.R1, asm.R6).WithSymbol("here"),
	)
}

// cookie puts the socket's cookie into R9, and into the place of a map's key.
func (b builder) cookie() asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.FnGetSocketCookie.Call(),
		asm.Mov.Reg(asm.R9, asm.R0),
		asm.StoreMem(asm.RFP, stackKey, asm.R9, asm.DWord),
	}
}

// user puts the user who makes the system call into the record, as [portlist.UserOf] has it.
func (b builder) user() asm.Instructions {
	return asm.Instructions{
		asm.FnGetCurrentUidGid.Call(), // the user in the lower half
		asm.LSh.Imm(asm.R0, 32),
		asm.RSh.Imm(asm.R0, 32),
		asm.JLT.Imm(asm.R0, portlist.SubUIDMin, "one"),
		asm.Mov.Reg(asm.R1, asm.R0),
		asm.Sub.Imm(asm.R1, portlist.SubUIDMin),
		asm.Mod.Imm(asm.R1, portlist.SubUIDCount),
		asm.Sub.Reg(asm.R0, asm.R1),
		asm.StoreMem(asm.RFP, stackUser, asm.R0, asm.Word).WithSymbol("one"),
	}
}

// noUser puts into the record that the user is not known.
func (b builder) noUser() asm.Instruction {
	return asm.StoreImm(asm.RFP, stackUser, -1, asm.Word)
}

// emit writes a record with the cookie in R9, the port in R7, the family in R8 and the user
// in its place, and is the end of a program.
func (b builder) emit(label string, closed int32, proto int64) asm.Instructions {
	return asm.Instructions{
		asm.StoreMem(asm.RFP, stackRecord, asm.R9, asm.DWord).WithSymbol(label),
		asm.StoreMem(asm.RFP, stackRecord+8, asm.R7, asm.Half),
		asm.StoreImm(asm.RFP, stackRecord+10, proto, asm.Byte),
		asm.Or.Imm(asm.R8, closed),
		asm.StoreMem(asm.RFP, stackRecord+11, asm.R8, asm.Byte),
		asm.Ja.Label("emit"),
	}
}

// end is what all programs end with: the record, if there is one, and the answer that
// all is well.
func (b builder) end() asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R1, asm.RFP, stackUser, asm.Word).WithSymbol("emit"),
		asm.StoreMem(asm.RFP, stackKey, asm.R1, asm.Word),
		asm.LoadMapPtr(asm.R1, b.quiet.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, stackKey),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "loud"),
		asm.LoadMapPtr(asm.R1, b.quietRing.FD()),
		asm.Mov.Imm(asm.R4, ringNoWakeup),
		asm.Mov.Imm(asm.R9, lostOfQuiet),
		asm.Ja.Label("write"),
		asm.LoadMapPtr(asm.R1, b.ring.FD()).WithSymbol("loud"),
		asm.Mov.Imm(asm.R4, 0),
		asm.Mov.Imm(asm.R9, lostOfAll),
		asm.Mov.Reg(asm.R2, asm.RFP).WithSymbol("write"),
		asm.Add.Imm(asm.R2, stackRecord),
		asm.Mov.Imm(asm.R3, recordLen),
		asm.FnRingbufOutput.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
		// No room: count it.
		asm.StoreImm(asm.RFP, stackKey, 0, asm.Word),
		asm.LoadMapPtr(asm.R1, b.lost.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, stackKey),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
		asm.Add.Reg(asm.R0, asm.R9),
		asm.Mov.Imm(asm.R1, 1),
		asm.StoreXAdd(asm.R0, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R0, 1).WithSymbol("out"),
		asm.Return(),
	}
}

// tcp is the sock_ops program. It asks of every socket that begins to listen to be
// called when its state changes. A connection inherits that from its listener, and it
// is taken from it again.
func (b builder) tcp() *ebpf.ProgramSpec {
	insns := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R7, asm.R6, opsOp, asm.Word),
		asm.JEq.Imm(asm.R7, opListen, "watched"),
		asm.JEq.Imm(asm.R7, opState, "watched"),
		asm.JNE.Imm(asm.R7, opPassiveEstablished, "out"),
		asm.LoadMem(asm.R2, asm.R6, opsFlags, asm.Word),
		asm.JSet.Imm(asm.R2, flagState, "forget"),
		asm.Ja.Label("out"),
		asm.And.Imm(asm.R2, ^flagState).WithSymbol("forget"),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.FnSockOpsCbFlagsSet.Call(),
		asm.Ja.Label("out"),
		asm.LoadMem(asm.R8, asm.R6, opsFamily, asm.Word).WithSymbol("watched"),
	}
	insns = append(insns, b.ours()...)
	insns = append(insns, b.cookie()...)
	insns = append(insns, b.noUser())
	insns = append(insns, b.onKey(b.owners, asm.FnMapLookupElem)...)
	insns = append(insns,
		asm.JEq.Imm(asm.R0, 0, "unowned"),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.Word),
		asm.StoreMem(asm.RFP, stackUser, asm.R1, asm.Word),
		asm.JEq.Imm(asm.R7, opState, "state").WithSymbol("unowned"),
		asm.LoadMem(asm.R2, asm.R6, opsFlags, asm.Word),
		asm.Or.Imm(asm.R2, flagState),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.FnSockOpsCbFlagsSet.Call(),
		asm.LoadMem(asm.R7, asm.R6, opsLocalPort, asm.Word),
		asm.Ja.Label("opened"),
		asm.LoadMem(asm.R2, asm.R6, opsArg0, asm.Word).WithSymbol("state"),
		asm.JNE.Imm(asm.R2, stateListen, "out"),
		asm.LoadMem(asm.R7, asm.R6, opsLocalPort, asm.Word),
	)
	insns = append(insns, b.onKey(b.owners, asm.FnMapDeleteElem)...)
	insns = append(insns, b.emit("closed", recordClosed, unix.IPPROTO_TCP)...)
	insns = append(insns, b.emit("opened", 0, unix.IPPROTO_TCP)...)
	insns = append(insns, b.end()...)
	return &ebpf.ProgramSpec{Name: "rum_tcp", Type: ebpf.SockOps, AttachType: ebpf.AttachCGroupSockOps, Instructions: insns}
}

// bind notes which port a UDP socket asks for.
func (b builder) bind(at ebpf.AttachType) *ebpf.ProgramSpec {
	insns := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R2, asm.R6, askedProtocol, asm.Word),
		asm.JNE.Imm(asm.R2, unix.IPPROTO_UDP, "out"),
		asm.Mov.Imm(asm.R8, 0), // tells nobody, wherever it is
	}
	insns = append(insns, b.ours()...)
	insns = append(insns, b.cookie()...)
	insns = append(insns,
		asm.LoadMem(asm.R7, asm.R6, askedPort, asm.Word), // in network byte order; only 0 matters
		asm.And.Imm(asm.R7, 0xffff),
		asm.StoreMem(asm.RFP, stackValue, asm.R7, asm.DWord),
	)
	insns = append(insns, b.remember(b.sockets)...)
	insns = append(insns,
		asm.Mov.Imm(asm.R0, 1).WithSymbol("out"),
		asm.Return(),
	)
	return &ebpf.ProgramSpec{Name: "rum_bind", Type: ebpf.CGroupSockAddr, AttachType: at, Instructions: insns}
}

// remember writes the value into a map by cookie.
func (b builder) remember(in *ebpf.Map) asm.Instructions {
	return asm.Instructions{
		asm.LoadMapPtr(asm.R1, in.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, stackKey),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, stackValue),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnMapUpdateElem.Call(),
	}
}

// onKey looks the cookie up in a map, after which R0 points to the value or is 0, or deletes
// it there.
func (b builder) onKey(of *ebpf.Map, do asm.BuiltinFunc) asm.Instructions {
	return asm.Instructions{
		asm.LoadMapPtr(asm.R1, of.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, stackKey),
		do.Call(),
	}
}

// bound tells of a UDP socket that has got its port by bind(2), and notes whose a TCP
// socket is.
func (b builder) bound(at ebpf.AttachType) *ebpf.ProgramSpec {
	family := int32(0)
	if at == ebpf.AttachCGroupInet6PostBind {
		family = sockV6
	}
	insns := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R7, asm.R6, sockProtocol, asm.Word),
		asm.JEq.Imm(asm.R7, unix.IPPROTO_UDP, "either"),
		asm.JNE.Imm(asm.R7, unix.IPPROTO_TCP, "out"),
		asm.LoadMem(asm.R8, asm.R6, sockFamily, asm.Word).WithSymbol("either"),
	}
	insns = append(insns, b.ours()...)
	insns = append(insns, b.cookie()...)
	insns = append(insns, b.user()...)
	insns = append(insns,
		asm.JEq.Imm(asm.R7, unix.IPPROTO_TCP, "owner"),
		asm.LoadMem(asm.R7, asm.R6, sockPort, asm.Word),
	)
	insns = append(insns, b.onKey(b.sockets, asm.FnMapLookupElem)...)
	insns = append(insns,
		asm.LoadMem(asm.R1, asm.RFP, stackUser, asm.Word),
		asm.LSh.Imm(asm.R1, 32),
		asm.Or.Reg(asm.R1, asm.R7),
		asm.Or.Imm(asm.R1, sockBound|family),
		asm.JEq.Imm(asm.R0, 0, "store"),
		asm.LoadMem(asm.R2, asm.R0, 0, asm.DWord),
		asm.JEq.Imm(asm.R2, 0, "store"), // any port
		asm.Or.Imm(asm.R1, sockExplicit),
		asm.StoreMem(asm.RFP, stackValue, asm.R1, asm.DWord).WithSymbol("store"),
	)
	insns = append(insns, b.remember(b.sockets)...)
	insns = append(insns, b.emit("opened", 0, unix.IPPROTO_UDP)...)
	insns = append(insns,
		asm.LoadMem(asm.R1, asm.RFP, stackUser, asm.Word).WithSymbol("owner"),
		asm.StoreMem(asm.RFP, stackValue, asm.R1, asm.Word),
	)
	insns = append(insns, b.remember(b.owners)...)
	insns = append(insns, asm.Ja.Label("out"))
	insns = append(insns, b.end()...)
	return &ebpf.ProgramSpec{Name: "rum_bound", Type: ebpf.CGroupSock, AttachType: at, Instructions: insns}
}

// release tells of a socket that goes, if it is in the map of sockets, or a listener of
// MPTCP.
func (b builder) release() *ebpf.ProgramSpec {
	insns := asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1)}
	insns = append(insns, b.cookie()...)
	insns = append(insns, b.onKey(b.sockets, asm.FnMapLookupElem)...)
	insns = append(insns,
		asm.JNE.Imm(asm.R0, 0, "known"),
		// A listener of MPTCP is two sockets: this one, and one of the kernel's own that
		// is in the tables and of whose release nobody is told.
		asm.LoadMem(asm.R2, asm.R6, sockProtocol, asm.Word),
		asm.JNE.Imm(asm.R2, unix.IPPROTO_MPTCP, "out"),
		asm.LoadMem(asm.R2, asm.R6, sockState, asm.Word),
		asm.JNE.Imm(asm.R2, stateListen, "out"),
		asm.Mov.Imm(asm.R9, 0),
		asm.Mov.Imm(asm.R7, 0),
		asm.LoadMem(asm.R8, asm.R6, sockFamily, asm.Word),
	)
	insns = append(insns, b.ours()...)
	insns = append(insns, b.user()...)
	insns = append(insns,
		asm.Ja.Label("tcp"),
		asm.LoadMem(asm.R7, asm.R0, 0, asm.DWord).WithSymbol("known"),
		asm.Mov.Reg(asm.R1, asm.R7),
		asm.RSh.Imm(asm.R1, 32),
		asm.StoreMem(asm.RFP, stackUser, asm.R1, asm.Word),
	)
	insns = append(insns, b.onKey(b.sockets, asm.FnMapDeleteElem)...)
	insns = append(insns,
		asm.JSet.Imm(asm.R7, sockBound, "bound"),
		asm.Ja.Label("out"), // it asked for a port and got none
		asm.Mov.Imm(asm.R8, unix.AF_INET).WithSymbol("bound"),
		asm.JSet.Imm(asm.R7, sockV6, "v6"),
		asm.Ja.Label("family"),
		asm.Mov.Imm(asm.R8, unix.AF_INET6).WithSymbol("v6"),
		asm.JSet.Imm(asm.R7, sockTCP, "tcp").WithSymbol("family"),
	)
	insns = append(insns, b.emit("udp", recordClosed, unix.IPPROTO_UDP)...)
	insns = append(insns, b.emit("tcp", recordClosed, unix.IPPROTO_TCP)...)
	insns = append(insns, b.end()...)
	return &ebpf.ProgramSpec{Name: "rum_release", Type: ebpf.CGroupSock, AttachType: ebpf.AttachCgroupInetSockRelease, Instructions: insns}
}

// tracepoint is the program for sock:inet_sock_set_state. The kernel says there neither
// the cookie nor the network namespace, nor does it say the user.
func (b builder) tracepoint() *ebpf.ProgramSpec {
	insns := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.Mov.Imm(asm.R9, 0),
		b.noUser(),
		asm.LoadMem(asm.R7, asm.R6, tracePort, asm.Half),
		asm.LoadMem(asm.R8, asm.R6, traceFamily, asm.Half),
		asm.LoadMem(asm.R2, asm.R6, traceNew, asm.Word),
		asm.JEq.Imm(asm.R2, stateListen, "opened"),
		asm.LoadMem(asm.R2, asm.R6, traceOld, asm.Word),
		asm.JNE.Imm(asm.R2, stateListen, "out"),
	}
	insns = append(insns, b.emit("closed", recordClosed, unix.IPPROTO_TCP)...)
	insns = append(insns, b.emit("opened", 0, unix.IPPROTO_TCP)...)
	insns = append(insns, b.end()...)
	return &ebpf.ProgramSpec{Name: "rum_trace", Type: ebpf.TracePoint, Instructions: insns}
}
