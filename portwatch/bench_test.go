package portwatch_test

import (
	"net"
	"net/netip"
	"syscall"
	"testing"

	"github.com/rum-vm/rum-agent/portwatch"
)

// BenchmarkScan measures one scan from either source, on the machine as it is
// and with 5,000 connections (10,000 established rows) more. The cost of
// procfs also grows with the size of the kernel's hash table, which follows
// the memory of the machine.
func BenchmarkScan(b *testing.B) {
	sources := func(b *testing.B) {
		b.Run("sockdiag", func(b *testing.B) { benchScan(b, &portwatch.Scanner{}) })
		b.Run("procfs", func(b *testing.B) { benchScan(b, &portwatch.Scanner{Proc: "/proc/"}) })
	}
	b.Run("idle", sources)
	b.Run("busy", func(b *testing.B) {
		connections(b, 5000)
		sources(b)
	})
}

func benchScan(b *testing.B, s *portwatch.Scanner) {
	defer s.Close()
	var before, after syscall.Rusage
	b.ReportAllocs()
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &before)
	for b.Loop() {
		if _, err := s.Scan(); err != nil {
			b.Fatal(err)
		}
	}
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &after)
	cpu := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
	b.ReportMetric(float64(cpu)/float64(b.N), "cpu-ns/op")
}

// BenchmarkHolder includes the search of all processes.
func BenchmarkHolder(b *testing.B) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	addr := netip.MustParseAddrPort(ln.Addr().String())
	for b.Loop() {
		if portwatch.Holder("tcp", addr) == "" {
			b.Fatal("no holder")
		}
	}
}

func connections(b *testing.B, n int) {
	b.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < uint64(2*n+100) {
		b.Fatalf("%d descriptors allowed; raise the limit with ulimit -n %d", limit.Cur, 2*n+100)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { ln.Close() })
	for range n {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		s, err := ln.Accept()
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() {
			// A reset leaves nothing in TIME_WAIT.
			_ = c.(*net.TCPConn).SetLinger(0)
			c.Close()
			s.Close()
		})
	}
}
