package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/rum-vm/rum-agent/agent-host/control"
	"github.com/rum-vm/rum-agent/agent-host/status"
	"github.com/rum-vm/rum-agent/test/logbuf"
	"github.com/rum-vm/rum-agent/test/ownnet"
)

// here runs a program that this test binary is as well until the test ends.
func here(t *testing.T, name string, args ...string) *logbuf.Buffer {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var out logbuf.Buffer
	c := &exec.Cmd{Path: self, Args: append([]string{name}, args...), Stdout: &out, Stderr: &out}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Signal(syscall.SIGTERM)
		watchdog := time.AfterFunc(20*time.Second, func() { _ = c.Process.Kill() })
		defer watchdog.Stop()
		if err := c.Wait(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out.String())
		}
	})
	return &out
}

// served runs an agent with a guest that has a port, and waits until that is forwarded.
func served(t *testing.T, args ...string) (socket string, port uint16) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("XDG_STATE_HOME", dir)
	socket, port = filepath.Join(dir, "control.sock"), ownnet.FreePort(t)
	here(t, "fake-guest", filepath.Join(dir, "guest.sock"), strconv.Itoa(int(port)))
	here(t, "rum-host-agent", append([]string{"run", "--socket", socket, "--vm", "dev=unix:" + filepath.Join(dir, "guest.sock")}, args...)...)
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		st, err := control.NewClient(socket).Status(t.Context())
		if err == nil && len(st.VMs) > 0 && len(st.VMs[0].Forwards) > 0 && st.VMs[0].Forwards[0].State == status.Active {
			return socket, port
		}
		if time.Now().After(end) {
			t.Fatalf("the port is not forwarded: %+v, %v", st, err)
		}
	}
}

func TestTheLinesOfTheAPIsDocumentationWork(t *testing.T) {
	socket, port := served(t)
	text, err := os.ReadFile("../../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	lines := regexp.MustCompile(`(?m)^    (curl .*)$`).FindAllStringSubmatch(string(text), -1)
	asked := make(map[string]bool)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, found := range lines {
		line := strings.ReplaceAll(found[1], "8080", strconv.Itoa(int(port)))
		c := exec.CommandContext(ctx, "sh", "-c", line)
		c.WaitDelay = time.Second
		c.Env = append(os.Environ(), "SOCKET="+socket)
		out, err := c.Output()
		if err != nil || !json.Valid(out) && !bytes.Contains(out, []byte("# HELP rum_agent_info ")) {
			t.Errorf("%s: %v\n%s", line, err, out)
		}
		asked[regexp.MustCompile(`/v1/[a-z]+`).FindString(line)] = true
	}
	for _, path := range regexp.MustCompile("`(?:GET|POST) (/v1/[a-z]+)`").FindAllStringSubmatch(string(text), -1) {
		if !asked[path[1]] {
			t.Errorf("no line asks for %s", path[1])
		}
	}
	if len(asked) != 14 {
		t.Errorf("asked for are %v", asked)
	}
}

// schemaOf compiles docs/status.schema.json.
func schemaOf(t *testing.T) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	s, err := c.Compile("../../../docs/status.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func validate(t *testing.T, s *jsonschema.Schema, text []byte) {
	t.Helper()
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Validate(value); err != nil {
		t.Errorf("%v\nof\n%s", err, text)
	}
}

func TestStatusIsAsItsSchemaSays(t *testing.T) {
	dir := t.TempDir()
	rules := filepath.Join(dir, "rum.toml")
	if err := os.WriteFile(rules, []byte("[[forward]]\nguest_socket = \"/run/app.sock\"\nhost = "+strconv.Itoa(int(ownnet.FreePort(t)))+"\nlabel = \"app\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	socket, _ := served(t, "--config", rules, "--vm", "far=unix:"+filepath.Join(dir, "none.sock"))
	schema := schemaOf(t)
	for _, args := range [][]string{{"status", "--json"}, {"status", "--json", "dev"}, {"status", "--json", "--state", "active"}} {
		out, _, err := runHere(t, append(args, "--socket", socket)...)
		if err != nil {
			t.Fatal(err)
		}
		validate(t, schema, []byte(out))
	}
}

// TestTheSchemaHasEveryFieldOfAStatus fills every field, which no one status does.
func TestTheSchemaHasEveryFieldOfAStatus(t *testing.T) {
	var st status.Status
	fill(reflect.ValueOf(&st).Elem())
	st.VMs[0].State, st.VMs[0].Auth, st.Page.State, st.Discovery[0].State = status.Paused, "psk", status.Active, status.Down
	f := &st.VMs[0].Forwards[0]
	f.Proto, f.State, f.Path = "udp", status.Claim, "mux"
	text, err := json.Marshal(st)
	if err != nil {
		t.Fatal(err)
	}
	validate(t, schemaOf(t), text)
}

// fill gives values, and one element to what has elements.
func fill(v reflect.Value) {
	if v.Type() == reflect.TypeFor[time.Time]() {
		v.Set(reflect.ValueOf(time.Unix(1700000000, 0).UTC()))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.Map:
		one := reflect.New(v.Type().Elem()).Elem()
		fill(one)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf(status.Active), one)
	case reflect.String:
		v.SetString("text")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Float64:
		v.SetFloat(1.5)
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Uint16, reflect.Uint64:
		v.SetUint(7)
	}
}

func TestTheStatusSocketIsTheGroupsAndTellsNoDirectories(t *testing.T) {
	dir := t.TempDir()
	public := filepath.Join(dir, "public.sock")
	rules := filepath.Join(dir, "rum.toml")
	if err := os.WriteFile(rules, []byte("[[ports]]\nguest = 9\nignore = true\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	gid := os.Getgid()
	_, port := served(t, "--config", rules, "--vm", "far=unix:"+filepath.Join(dir, "none.sock"), "--status-socket", public+":"+strconv.Itoa(gid))
	info, err := os.Stat(public)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o660 || int(info.Sys().(*syscall.Stat_t).Gid) != gid {
		t.Errorf("the socket's mode is %v", info.Mode())
	}
	for _, args := range [][]string{{"status"}, {"status", "--json"}, {"explain", strconv.Itoa(int(port))}, {"explain", "9", "--vm", "far"}} {
		out, _, err := runHere(t, append(args, "--socket", public)...)
		if err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		if strings.Contains(out, "none.sock") && !strings.Contains(out, "…/none.sock") {
			t.Errorf("%v shows a path as if it were whole:\n%s", args, out)
		}
		if strings.Contains(out, dir) {
			t.Errorf("%v tells of %s:\n%s", args, dir, out)
		}
		if !strings.Contains(out, "none.sock") && !strings.Contains(out, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port).String()) {
			t.Errorf("%v:\n%s", args, out)
		}
	}
	for _, args := range [][]string{
		{"wait", strconv.Itoa(int(port)), "--timeout", "1s"}, {"proxy", "dev", strconv.Itoa(int(port))},
		{"forward", "add", "9"}, {"forward", "rm", "9"}, {"forward", "list"}, {"release", "9"}, {"reload"},
	} {
		_, _, err = runHere(t, append(args, "--socket", public)...)
		if err == nil || !strings.Contains(err.Error(), "for status alone") {
			t.Errorf("%v, which has something done: %v", args, err)
		}
	}
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", public)
	}}
	res, err := (&http.Client{Transport: tr}).Get("http://agent/v1/requests") // whose URLs may be secrets
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusForbidden {
		t.Errorf("the pages that VMs ask for: %s", res.Status)
	}
}
