package process

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// A chain of processes that inherit hundreds of sockets is not read once for each of
// them.
func TestASweepReadsEachProcessOnce(t *testing.T) {
	const processes, sockets = 9, 200
	root := t.TempDir()
	for pid := 2; pid < 2+processes; pid++ {
		dir := filepath.Join(root, strconv.Itoa(pid))
		if err := os.MkdirAll(filepath.Join(dir, "fd"), 0o755); err != nil {
			t.Fatal(err)
		}
		stat := fmt.Sprintf("%d (a) S %d 1 1 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 50 1000 10 18446744073709551615 "+
			"1 1 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n", pid, pid-1)
		if err := os.WriteFile(filepath.Join(dir, "stat"), []byte(stat), 0o644); err != nil {
			t.Fatal(err)
		}
		for i := range sockets {
			if err := os.Symlink(fmt.Sprintf("socket:[%d]", 1000+i), filepath.Join(dir, "fd", strconv.Itoa(i))); err != nil {
				t.Fatal(err)
			}
		}
	}
	wanted := make(map[uint64]bool)
	for i := range sockets {
		wanted[uint64(1000+i)] = true
	}
	s := newSweep(root)
	found := s.find(wanted)
	for inode, o := range found {
		if o.pid != 2 {
			t.Errorf("%d is held by %v, want the oldest", inode, o)
		}
	}
	if len(found) != sockets || s.links != processes*sockets {
		t.Errorf("%d sockets found among %d descriptors, want %d among %d", len(found), s.links, sockets, processes*sockets)
	}
}
