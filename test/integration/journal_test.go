package integration

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rum-vm/rum-agent/agent-host/control"
)

// startUnderJournal starts an agent whose standard error systemd has as a stream of the journal, or says so of another
// one. The journal is a socket of the test's, where systemd has its own; log is the file
// that standard error is.
func startUnderJournal(t *testing.T, itsOwn bool, agent string, args ...string) (journal *net.UnixConn, log string, end func() error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "journal")
	journal, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = journal.Close() })
	stderr, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stderr.Close() })
	var st syscall.Stat_t
	if err := syscall.Fstat(int(stderr.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	if !itsOwn {
		st.Ino++
	}
	const enter = `mount -t tmpfs tmpfs /run; mkdir -p /run/systemd/journal; : >/run/systemd/journal/socket
mount --bind "$0" /run/systemd/journal/socket; exec "$@"`
	cmd := exec.Command("unshare", append([]string{"--mount", "sh", "-euc", enter, path, filepath.Join(bin, agent)}, args...)...)
	cmd.Env = append(os.Environ(), fmt.Sprintf("JOURNAL_STREAM=%d:%d", st.Dev, st.Ino))
	cmd.Stderr = stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	end = func() error {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-done:
			close(done)
			return err
		case <-time.After(15 * time.Second):
			return errors.New("SIGTERM does not end the agent")
		}
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
	})
	return journal, stderr.Name(), end
}

// entry waits for an entry of the journal of which a field has a value.
func entry(t *testing.T, journal *net.UnixConn, name, value string) map[string]string {
	t.Helper()
	_ = journal.SetReadDeadline(time.Now().Add(20 * time.Second))
	b := make([]byte, 1<<18)
	for {
		n, err := journal.Read(b)
		if err != nil {
			t.Fatalf("no entry with %s=%s: %v", name, value, err)
		}
		fields := make(map[string]string)
		for rest := b[:n]; len(rest) > 0; {
			name, value, _ := bytes.Cut(rest, []byte("\n"))
			size := binary.LittleEndian.Uint64(value)
			fields[string(name)], rest = string(value[8:8+size]), value[9+size:]
		}
		if fields[name] == value {
			return fields
		}
	}
}

func TestTheJournalHasLinesOfAVMByItsName(t *testing.T) {
	journal, log, _ := startUnderJournal(t, true, "rum-host-agent", "run", "--http", "none",
		"--socket", filepath.Join(t.TempDir(), "control.sock"), "--vm", "dev=exec:echo VM=other >&2")
	line := entry(t, journal, "LINE", "VM=other")
	if line["VM"] != "dev" || line["PRIORITY"] != "6" || line["SYSLOG_IDENTIFIER"] != "rum-host-agent" || line["MESSAGE"] != "command says vm=dev line=\"VM=other\"" {
		t.Errorf("its fields are %q", line)
	}
	if line := entry(t, journal, "VM", "dev"); line["PRIORITY"] != "4" || !strings.HasPrefix(line["MESSAGE"], "cannot reach the guest agent vm=dev ") {
		t.Errorf("the fields of a warning are %q", line)
	}
	if said, err := os.ReadFile(log); err != nil || len(said) > 0 {
		t.Errorf("the log is on standard error too: %s, %v", said, err)
	}
}

func TestTheGuestAgentsLogIsInTheJournalOfTheVM(t *testing.T) {
	journal, _, _ := startUnderJournal(t, true, "rum-guest-agent", "--hosts", "none", "--listen", "unix:"+filepath.Join(t.TempDir(), "guest.sock"))
	if line := entry(t, journal, "SYSLOG_IDENTIFIER", "rum-guest-agent"); line["PRIORITY"] != "6" || line["FROM"] != "" && line["FROM"] != "host" {
		t.Errorf("its fields are %q", line)
	}
}

func TestAStandardErrorThatIsNotTheJournalsHasTheLogAsText(t *testing.T) {
	_, log, _ := startUnderJournal(t, false, "rum-host-agent", "run", "--http", "none",
		"--socket", filepath.Join(t.TempDir(), "control.sock"), "--vm", "dev=exec:false")
	eventually(t, "a line of text", func() bool {
		said, _ := os.ReadFile(log)
		return bytes.Contains(said, []byte("level=WARN ")) && bytes.Contains(said, []byte(" vm=dev "))
	})
}

func TestAJournalThatTakesNothingStopsNothing(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "control.sock")
	noise := "exec:yes " + strings.Repeat("x", 900) + " >&2"
	_, _, end := startUnderJournal(t, true, "rum-host-agent", "run", "--http", "none", "--socket", socket,
		"--vm", "one="+noise, "--vm", "two="+noise, "--vm", "three="+noise)
	answered := 0 // by then the socket has more datagrams than its queue takes
	eventually(t, "status, again and again", func() bool {
		if _, err := control.NewClient(socket).Status(t.Context()); err == nil {
			answered++
		}
		return answered >= 100
	})
	if err := end(); err != nil {
		t.Error(err)
	}
}
