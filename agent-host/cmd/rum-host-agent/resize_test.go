package main

import (
	"bytes"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A status that stays on the screen is as wide and as high as the terminal is at that moment.
func TestAWatchedStatusFollowsTheSizeOfTheTerminal(t *testing.T) {
	socket, _ := served(t)
	ours, theirs := terminal(t)
	resize := func(lines, columns uint16) {
		t.Helper()
		if err := unix.IoctlSetWinsize(int(ours.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: lines, Col: columns}); err != nil {
			t.Fatal(err)
		}
	}
	resize(40, 200)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := &exec.Cmd{Path: self, Args: []string{"rum-host-agent", "status", "--watch", "--socket", socket}}
	c.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "COLUMNS=") })
	c.Stdin, c.Stdout, c.Stderr = theirs, theirs, theirs
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	watchdog := time.AfterFunc(20*time.Second, func() { _ = c.Process.Kill() })
	defer watchdog.Stop()
	theirs.Close()
	const clear = "\x1b[2J"
	until := func(is func(screens [][]byte) bool) {
		t.Helper()
		var seen []byte
		for !is(bytes.Split(seen, []byte(clear))) {
			b := make([]byte, 4096)
			n, err := ours.Read(b)
			if err != nil {
				t.Fatalf("%v after %q", err, seen)
			}
			seen = append(seen, b[:n]...)
		}
	}
	ended := func(screen []byte) bool { return bytes.Contains(screen, []byte("CONNS")) }
	until(func(screens [][]byte) bool {
		last := screens[len(screens)-1]
		return ended(last) && bytes.Contains(last, []byte("GUEST"))
	})
	resize(40, 50)
	until(func(screens [][]byte) bool {
		last := screens[len(screens)-1]
		return bytes.Contains(last, []byte("localhost:")) && !bytes.Contains(last, []byte("GUEST"))
	})
	resize(3, 50)
	until(func(screens [][]byte) bool {
		whole := screens[:len(screens)-1]
		return slices.ContainsFunc(whole, func(screen []byte) bool {
			return bytes.Contains(screen, []byte("dev  ")) && bytes.Count(screen, []byte("\n")) < 3
		})
	})
	if err := c.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Error(err)
	}
}
