package libvirt

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestURIs(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", "/run/user/1000")
	t.Setenv("LIBVIRT_DEFAULT_URI", "qemu+unix:///session?socket=/tmp/own")
	for uri, want := range map[string]daemon{
		"":               {SessionURI, []string{"/tmp/own"}},
		"qemu:///system": {SystemURI, []string{"/run/libvirt/libvirt-sock", "/run/libvirt/virtqemud-sock"}},
		"qemu:///session": {SessionURI, []string{"/run/user/1000/libvirt/libvirt-sock",
			"/run/user/1000/libvirt/virtqemud-sock"}},
		"qemu+unix:///system?socket=/run/x": {SystemURI, []string{"/run/x"}},
		"/run/libvirt/virtqemud-sock":       {SystemURI, []string{"/run/libvirt/virtqemud-sock"}},
	} {
		got, err := parseURI(uri)
		if err != nil {
			t.Errorf("%q: %v", uri, err)
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(daemon{})); diff != "" {
			t.Errorf("%q: %s", uri, diff)
		}
	}
}

func TestURIsOfOtherMachinesAndHypervisorsAreRefused(t *testing.T) {
	for _, uri := range []string{
		"qemu+ssh://box/system", "qemu://box/system", "qemu+tls:///system", "xen:///system", "test:///default",
		"qemu:///else", "qemu:system", "://",
	} {
		if d, err := parseURI(uri); err == nil {
			t.Errorf("%q was taken for %+v", uri, d)
		} else if !strings.Contains(err.Error(), uri) {
			t.Errorf("the error does not name %q: %v", uri, err)
		}
	}
}

func TestOpeningWithoutADaemonSaysWhatToDo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	_, err := Open(t.Context(), path)
	if !errors.Is(err, ErrUnavailable) || !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v", err)
	}
	if _, err := Open(t.Context(), None); !errors.Is(err, ErrUnavailable) {
		t.Errorf("%q: got %v", None, err)
	}
}

// silence is a daemon that accepts and never answers, as one does that hangs.
func silence(t *testing.T) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return path
}

func TestOpeningEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := Open(ctx, silence(t))
		done <- err
	}()
	select {
	case err := <-done:
		if !errors.Is(err, ErrUnavailable) {
			t.Errorf("got %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("still opening")
	}
}
