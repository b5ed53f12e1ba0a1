package portwatch_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/rum-vm/rum-agent/portwatch"
	"github.com/rum-vm/rum-agent/portwatch/portlist"
)

// Rows as kernels of the 5.x and 6.x series print them.
const (
	tcp4Rows = `   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 18434 1 ffff8881074b8000 100 0 0 10 0                     
   1: 3500007F:0035 00000000:0000 0A 00000000:00000000 00:00000000 00000000   101        0 16990 1 ffff8881012d1980 100 0 0 10 5                     
   2: 0100007F:1F90 00000000:0000 0A 00000000:00000003 00:00000000 00000000  1000        0 99120 1 ffff8881074b9980 100 0 0 10 0                     
   3: 0F02000A:0016 0202000A:C350 01 00000000:00000000 02:000A7214 00000000     0        0 18500 4 ffff8881074ba640 20 4 29 10 -1                    
   4: 0F02000A:B5A2 5DB8D822:01BB 06 00000000:00000000 03:000016EA 00000000     0        0 0 3 ffff888104e1c2a8                                      
  10: 0100007F:0277 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 18700 1 ffff8881074bb300 100 0 0 10 0                     
`
	tcp6Rows = `   0: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 18445 1 ffff88810482a300 100 0 0 10 0
   1: 00000000000000000000000001000000:0BB8 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 20111 1 ffff88810482ac40 100 0 0 10 0
   2: 0000000000000000FFFF00000100007F:2328 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 20112 1 ffff88810482b580 100 0 0 10 0
   3: B80D01200000000000000000 X
`
	udp4Rows = `  224: 3500007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000   101        0 16989 2 ffff888101240000 0        
  312: 0100007F:C001 0100007F:0035 01 00000000:00000000 00:00000000 00000000  1000        0 31000 2 ffff888101240480 0        
 1402: 00000000:14E9 00000000:0000 07 00000000:00000000 00:00000000 00000000   108        0 17120 2 ffff888101240900 12       
`
	udp6Rows = ` 1402: 00000000000000000000000000000000:14E9 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000   108        0 17121 2 ffff888104d0a000 0
`
)

func listener(proto, addr string) portlist.Listener {
	return portlist.Listener{Proto: proto, Addr: netip.MustParseAddrPort(addr)}
}

var compareAddr = cmp.Options{
	cmpopts.EquateComparable(netip.AddrPort{}, portlist.Program{}),
	cmpopts.IgnoreFields(portlist.Listener{}, "Inode", "UID"),
}

func TestKernelTablesGiveWaitingSocketsInOrder(t *testing.T) {
	root := fakeProc(t)
	write(t, root, "net/tcp", header4+tcp4Rows)
	write(t, root, "net/tcp6", header6+strings.ReplaceAll(tcp6Rows, "   3: B80D01200000000000000000 X\n", ""))
	write(t, root, "net/udp", udp4+udp4Rows)
	write(t, root, "net/udp6", udp6+udp6Rows)
	got, err := (&portwatch.Scanner{Proc: root}).Scan()
	if err != nil {
		t.Fatal(err)
	}
	want := []portlist.Listener{
		listener("tcp", "0.0.0.0:22"),
		listener("tcp", "[::]:22"),
		listener("tcp", "127.0.0.53:53"),
		listener("tcp", "[::1]:3000"),
		listener("tcp", "127.0.0.1:8080"),
		listener("tcp", "127.0.0.1:9000"), // from ::ffff:127.0.0.1
		listener("udp", "127.0.0.53:53"),
		listener("udp", "0.0.0.0:5353"),
		listener("udp", "[::]:5353"),
	}
	if diff := cmp.Diff(want, got, compareAddr); diff != "" {
		t.Error(diff)
	}
}

func TestOneAddressOfSeveralSocketsIsOneListener(t *testing.T) {
	root := fakeProc(t)
	write(t, root, "net/tcp", header4+listening(80, 502)+listening(80, 501)+listening(80, 500))
	addProcess(t, root, 40, 1, "second", 501)
	addProcess(t, root, 41, 1, "third", 502)
	got, err := (&portwatch.Scanner{Proc: root}).Scan()
	if err != nil {
		t.Fatal(err)
	}
	want := listener("tcp", "127.0.0.1:80")
	want.Process = "second[40]" // the oldest socket, 500, has no owner to be found
	if diff := cmp.Diff([]portlist.Listener{want}, got, compareAddr); diff != "" {
		t.Error(diff)
	}
}

func TestAKernelWithoutIPv6IsFine(t *testing.T) {
	root := fakeProc(t)
	write(t, root, "net/tcp", header4+listening(80, 0))
	for _, name := range []string{"net/tcp6", "net/udp6"} {
		if err := os.Remove(filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	got, err := (&portwatch.Scanner{Proc: root}).Scan()
	if err != nil || len(got) != 1 {
		t.Errorf("got %v, %v; want one listener", got, err)
	}
}

func TestAFailedScanIsAnErrorAndNeverAnEmptyResult(t *testing.T) {
	row := listening(80, 500)
	for name, breakIt := range map[string]func(t *testing.T, root string){
		"no procfs":      func(t *testing.T, root string) { remove(t, root) },
		"no tcp table":   func(t *testing.T, root string) { remove(t, filepath.Join(root, "net/tcp")) },
		"no udp table":   func(t *testing.T, root string) { remove(t, filepath.Join(root, "net/udp")) },
		"empty file":     func(t *testing.T, root string) { write(t, root, "net/tcp6", "") },
		"no header":      func(t *testing.T, root string) { write(t, root, "net/udp6", "hello world\n") },
		"garbage":        func(t *testing.T, root string) { write(t, root, "net/tcp", header4+"\x00\xff garbage\n") },
		"cut in a row":   func(t *testing.T, root string) { write(t, root, "net/tcp", header4+row+row[:40]) },
		"cut in udp row": func(t *testing.T, root string) { write(t, root, "net/udp", udp4+row[:110]) },
		"bad address": func(t *testing.T, root string) {
			write(t, root, "net/tcp", header4+strings.Replace(row, "0100007F", "01007F", 1))
		},
		"bad port": func(t *testing.T, root string) {
			write(t, root, "net/tcp", header4+strings.Replace(row, ":0050", ":10050", 1))
		},
		"bad state": func(t *testing.T, root string) {
			write(t, root, "net/tcp", header4+strings.Replace(row, " 0A ", " F0A ", 1))
		},
		"a directory": func(t *testing.T, root string) {
			remove(t, filepath.Join(root, "net/tcp6"))
			write(t, root, "net/tcp6/x", "")
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := fakeProc(t)
			breakIt(t, root)
			got, err := (&portwatch.Scanner{Proc: root}).Scan()
			if err == nil || got != nil {
				t.Fatalf("got %v, %v; want an error alone", got, err)
			}
			if !strings.Contains(err.Error(), root) {
				t.Errorf("error does not name the file: %v", err)
			}
		})
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}

// Whatever is in the tables, a scan ends with listeners or an error.
func FuzzTables(f *testing.F) {
	f.Add(header4+tcp4Rows, udp4+udp4Rows)
	f.Add(header6+tcp6Rows, udp6+udp6Rows)
	f.Add(header4+listening(80, 1), udp4+listening(80, 1)[:110])
	f.Fuzz(func(t *testing.T, tcp, udp string) {
		root := fakeProc(t)
		write(t, root, "net/tcp", tcp)
		write(t, root, "net/udp", udp)
		got, err := (&portwatch.Scanner{Proc: root}).Scan()
		if err != nil && got != nil {
			t.Errorf("both listeners and an error: %v, %v", got, err)
		}
		for _, l := range got {
			if !l.Addr.IsValid() || l.Addr.Addr().Is4In6() {
				t.Errorf("bad address %v", l.Addr)
			}
		}
	})
}
