package relay

import (
	"net"
	"runtime"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// A loop goes where the program is that it exchanges messages with, and stays free to be moved by the kernel.
func TestLoopFollowsTheProgramItExchangesMessagesWith(t *testing.T) {
	cpus := allowedProcessors(t)
	l := &loop{waiter: waiter{near: awakeMany}}
	p := &Pair{Registration: Registration{serial: 1}}
	for range 3 {
		for _, cpu := range cpus {
			program, agent := programAndAgent(t)
			sendFrom(t, cpu, program, agent)
			found := 0
			// The kernel may move the thread again at any moment, but not time after time.
			for range 1000 * followEvery {
				l.follow(p, agent)
				if processor() == cpu {
					found++
				}
			}
			if found < 1000 {
				t.Errorf("after %d of 8000 messages the loop was with its program on processor %d", found, cpu)
			}
		}
	}
	if now := allowedProcessors(t); !slices.Equal(now, cpus) {
		t.Errorf("the loop may run on %v now, and before on %v", now, cpus)
	}
}

// A loop that serves many, or moves much, is left where the kernel has it.
func TestLoopThatServesManyFollowsNone(t *testing.T) {
	cpus := allowedProcessors(t)
	for name, l := range map[string]*loop{
		"bulk":         {waiter: waiter{near: awakeMany, bulk: true}},
		"now and then": {},
	} {
		program, agent := programAndAgent(t)
		sendFrom(t, cpus[len(cpus)-1], program, agent)
		for range 1000 {
			l.follow(&Pair{Registration: Registration{serial: 1}}, agent)
		}
		if l.follower.messages < 0 || l.follower.away > 0 {
			t.Errorf("%s: the loop looked where its program is", name)
		}
	}
	l := &loop{waiter: waiter{near: awakeMany}}
	program, agent := programAndAgent(t)
	sendFrom(t, cpus[len(cpus)-1], program, agent)
	for i := range int32(1000) {
		l.follow(&Pair{Registration: Registration{serial: i % 2}}, agent)
	}
	if l.follower.messages != 1 {
		t.Errorf("two in turn: the loop counts %d messages as exchanged with one", l.follower.messages)
	}
}

// allowedProcessors keeps the test on one thread from here on.
func allowedProcessors(t *testing.T) []int {
	t.Helper()
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		t.Fatal(err)
	}
	var all []int
	for cpu := 0; len(all) < set.Count(); cpu++ {
		if set.IsSet(cpu) {
			all = append(all, cpu)
		}
	}
	return all
}

// programAndAgent are the two ends of a connection.
func programAndAgent(t *testing.T) (program net.Conn, agent int) {
	t.Helper()
	program, accepted := tcpPair(t)
	agent, err := TakeDescriptor(accepted)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(agent) })
	return program, agent
}

// sendFrom has a thread on one processor send a byte, and takes it in.
func sendFrom(t *testing.T, cpu int, program net.Conn, agent int) {
	t.Helper()
	sent := make(chan error)
	go func() {
		runtime.LockOSThread()
		var there unix.CPUSet
		there.Set(cpu)
		err := unix.SchedSetaffinity(0, &there)
		if err == nil {
			_, err = program.Write([]byte{1})
		}
		sent <- err
	}()
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(agent), Events: unix.POLLIN}}, 10_000); n != 1 {
		t.Fatalf("the byte did not arrive: %v", err)
	}
	if n, err := unix.Read(agent, make([]byte, 1)); n != 1 || err != nil {
		t.Fatalf("read %d bytes, %v; want 1", n, err)
	}
	if at := peerProcessor(agent); at != cpu {
		t.Fatalf("the kernel says processor %d sent, and it was %d", at, cpu)
	}
}
