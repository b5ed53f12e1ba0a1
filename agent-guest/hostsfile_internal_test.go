package guestagent

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

var host = netip.MustParseAddr("192.168.50.1")

// block is what is kept for an address.
func block(ip string) string { return hostsBegin + "\n" + ip + " " + HostName + "\n" + hostsEnd + "\n" }

// atRest makes a file that nobody is writing any more.
func atRest(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, time.Time{}, time.Now().Add(-time.Minute)); err != nil {
		t.Fatal(err)
	}
}

func TestTheHostsNameIsABlockOfItsOwn(t *testing.T) {
	const own = "127.0.0.1 localhost\n# kept by hand\n\n192.0.2.7\tbox  box.local\n"
	for _, row := range []struct{ name, before, after string }{
		{"an empty file", "", block("192.168.50.1")},
		{"lines of others", own, own + block("192.168.50.1")},
		{"no end of the last line", strings.TrimSuffix(own, "\n"), own + block("192.168.50.1")},
		{"another address", own + block("10.7.0.1"), own + block("192.168.50.1")},
		{"lines behind the block", block("10.7.0.1") + own, own + block("192.168.50.1")},
		{"two blocks", block("10.7.0.1") + own + block("10.8.0.1"), own + block("192.168.50.1")},
		{"a block without its end", hostsBegin + "\n10.7.0.1 " + HostName + "\n" + own, own + block("192.168.50.1")},
		{"a line within the block", hostsBegin + "\n192.0.2.8 mine\n10.7.0.1 " + HostName + "\n" + hostsEnd + "\n", "192.0.2.8 mine\n" + block("192.168.50.1")},
		{"the name outside the block", "192.0.2.9 " + HostName + "\n", "192.0.2.9 " + HostName + "\n" + block("192.168.50.1")},
		{"line ends of another system", "192.0.2.7 box\r\n" + strings.ReplaceAll(block("10.7.0.1"), "\n", "\r\n"), "192.0.2.7 box\r\n" + block("192.168.50.1")},
		{"blanks behind the markers", strings.ReplaceAll(block("10.7.0.1"), "\n", " \t\n") + own, own + block("192.168.50.1")},
		{"bytes that are no text", "\xff\xfe\x00\n", "\xff\xfe\x00\n" + block("192.168.50.1")},
	} {
		path := filepath.Join(t.TempDir(), "hosts")
		atRest(t, path, row.before)
		if written, err := writeHosts(path, host); !written || err != nil {
			t.Errorf("%s: %v, %v", row.name, written, err)
		}
		if got, _ := os.ReadFile(path); string(got) != row.after {
			t.Errorf("%s:\n%q, want\n%q", row.name, got, row.after)
		}
		if written, err := writeHosts(path, host); written || err != nil {
			t.Errorf("%s: written again (%v), %v", row.name, written, err)
		}
	}
}

func TestTheFileWithTheHostsNameKeepsModeAndOwner(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "hosts")
	atRest(t, path, "")
	uid, gid := os.Geteuid(), os.Getegid()
	if uid == 0 {
		uid, gid = 7, 8
		if err := os.Chown(path, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(path, 0o664); err != nil {
		t.Fatal(err)
	}
	if _, err := writeHosts(path, host); err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	stat := info.Sys().(*syscall.Stat_t)
	if info.Mode() != 0o664 || int(stat.Uid) != uid || int(stat.Gid) != gid {
		t.Errorf("%v, %d, %d", info.Mode(), stat.Uid, stat.Gid)
	}
	if all, _ := os.ReadDir(dir); len(all) != 1 {
		t.Errorf("%v is left", all)
	}
}

func TestAFileThatIsNotItselfIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	elsewhere := filepath.Join(dir, "elsewhere")
	if err := os.WriteFile(elsewhere, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	link, pipe, nowhere, huge := filepath.Join(dir, "link"), filepath.Join(dir, "pipe"), filepath.Join(dir, "missing", "hosts"), filepath.Join(dir, "huge")
	if err := os.Symlink(elsewhere, link); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(huge, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(huge, maxHosts+1); err != nil {
		t.Fatal(err)
	}
	for path, why := range map[string]string{link: "symbolic link", pipe: "not a regular file", dir: "not a regular file", nowhere: "no such file", huge: "larger than"} {
		written, err := writeHosts(path, host)
		if written || err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v, %v", filepath.Base(path), written, err)
		}
	}
	if text, _ := os.ReadFile(elsewhere); string(text) != "secret\n" {
		t.Errorf("behind the link is %q", text)
	}
	if target, _ := os.Readlink(link); target != elsewhere {
		t.Errorf("the link leads to %q", target)
	}
}

func TestAFileThatIsMissingIsMade(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "hosts")
	// What an agent has left that was killed.
	if err := os.WriteFile(filepath.Join(dir, ".rum-agent.hosts"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if written, err := writeHosts(path, host); !written || err != nil {
		t.Fatal(written, err)
	}
	text, err := os.ReadFile(path)
	if err != nil || string(text) != block("192.168.50.1") {
		t.Errorf("%q, %v", text, err)
	}
	if info, err := os.Lstat(path); err != nil || info.Mode() != 0o644 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if all, _ := os.ReadDir(dir); len(all) != 1 {
		t.Errorf("%v is left", all)
	}
	// It has come from somebody else meanwhile.
	if err := createFile(path, []byte("ours\n")); err != errJustChanged {
		t.Errorf("%v", err)
	}
	if again, _ := os.ReadFile(path); string(again) != string(text) {
		t.Errorf("%q", again)
	}
}

// A file that somebody writes in the same moment is read once more, later.
func TestWhatOthersWriteMeanwhileIsNotLost(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hosts")
	atRest(t, path, "old\n")
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	// Emptied, and not written yet.
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	if err := replaceFile(f, info, []byte("ours\n")); err != errJustChanged {
		t.Errorf("%v", err)
	}
	if written, err := writeHosts(path, host); written || err != errJustChanged {
		t.Errorf("%v, %v", written, err)
	}
	if text, _ := os.ReadFile(path); string(text) != "" {
		t.Errorf("%q", text)
	}
}
