package protocol

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
)

func TestTheLineOfARelayIsFoundBehindWhatALoginPrints(t *testing.T) {
	in := bytes.NewBufferString("Welcome!\nrum-relay is here\n" + string(RelayLine("v1.2.3 and more")) + "rest")
	agent, err := ReadRelayLine(in)
	if err != nil || agent != "v1.2.3-and-more" {
		t.Errorf("got %q, %v", agent, err)
	}
	if in.String() != "rest" {
		t.Errorf("%q is left, want what is behind the line", in)
	}
}

func TestWhatAnswersInThePlaceOfARelayIsNamed(t *testing.T) {
	_, err := ReadRelayLine(strings.NewReader("This account is not available.\x1b[2J\n"))
	if noise, ok := errors.AsType[*NoiseError](err); !ok || noise.Said != "This account is not available.?[2J" {
		t.Errorf("got %v", err)
	}
	_, err = ReadRelayLine(strings.NewReader("rum-relay 2 v9.0.0\n"))
	if version, ok := errors.AsType[*VersionError](err); !ok || version.Theirs != 2 || version.Agent != "v9.0.0" {
		t.Errorf("got %v", err)
	}
	endless := io.MultiReader(strings.NewReader(strings.Repeat("noise ", maxNoise)), neverRead{t})
	if _, err := ReadRelayLine(endless); err == nil {
		t.Error("noise without end is a relay")
	}
	if _, err := ReadHostLine(strings.NewReader("x\n" + string(HostLine("v1")))); err == nil {
		t.Error("something comes before the line of a host agent")
	}
}

// neverRead fails a test that reads it.
type neverRead struct{ t *testing.T }

func (r neverRead) Read([]byte) (int, error) { r.t.Error("read too far"); return 0, io.EOF }

func someDomain(i int) Domain {
	return Domain{Name: fmt.Sprint("vm", i), UUID: uuid.UUID{1, byte(i), byte(i >> 8)}, State: Running, Agent: "vsock", Bridge: netip.MustParseAddr("192.0.2.7")}
}

func TestAnInventoryIsReadAsItWasSent(t *testing.T) {
	v := Inventory{Error: "libvirt is away", Domains: []Domain{someDomain(1), {Name: "off", UUID: uuid.UUID{9}, State: Off}}}
	b, err := AppendInventory(nil, v)
	if err != nil {
		t.Fatal(err)
	}
	got, size, err := ReadInventory(bytes.NewReader(b))
	if diff := cmp.Diff(v, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); err != nil || diff != "" || size != len(b) {
		t.Errorf("%d bytes of %d, %v:\n%s", size, len(b), err, diff)
	}
}

func TestOfTooManyVMsARelaySendsAsManyAsMayBe(t *testing.T) {
	var v Inventory
	for i := range MaxDomains + 10 {
		v.Domains = append(v.Domains, someDomain(i))
	}
	v.Domains[0].Name = "a/b"
	b, err := AppendInventory(nil, v)
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := ReadInventory(bytes.NewReader(b))
	if err != nil || len(got.Domains) != MaxDomains || !strings.Contains(got.Error, "10 VMs are not shown") {
		t.Errorf("%d VMs, %q, %v", len(got.Domains), got.Error, err)
	}
}

func framed(text string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(text))), text...)
}

func TestAnInventoryThatNoRelaySendsIsRefused(t *testing.T) {
	const id = `"uuid":"01000000-0000-0000-0000-000000000000"`
	for name, in := range map[string][]byte{
		"too long":            binary.BigEndian.AppendUint32(nil, maxInventory+1),
		"no JSON":             framed("VMs"),
		"a name of a path":    framed(`{"domains":[{"name":"../dev","state":"off",` + id + `}]}`),
		"a name with escape":  framed(`{"domains":[{"name":"\u001b[2J","state":"off",` + id + `}]}`),
		"no name":             framed(`{"domains":[{"name":"","state":"off",` + id + `}]}`),
		"no UUID":             framed(`{"domains":[{"name":"dev","state":"off"}]}`),
		"a UUID that is none": framed(`{"domains":[{"name":"dev","state":"off","uuid":"ssh://other/1"}]}`),
		"no state":            framed(`{"domains":[{"name":"dev",` + id + `}]}`),
		"a command":           framed(`{"domains":[{"name":"dev","state":"running","agent":"exec",` + id + `}]}`),
		"one name twice":      framed(`{"domains":[{"name":"dev","state":"off",` + id + `},{"name":"dev","state":"off","uuid":"02000000-0000-0000-0000-000000000000"}]}`),
		"one UUID twice":      framed(`{"domains":[{"name":"a","state":"off",` + id + `},{"name":"b","state":"off",` + id + `}]}`),
		"an address of all":   framed(`{"domains":[{"name":"dev","state":"running","bridge":"0.0.0.0",` + id + `}]}`),
		"too many":            framed(`{"domains":[` + strings.Repeat(`{},`, MaxDomains) + `{}]}`),
	} {
		if v, _, err := ReadInventory(bytes.NewReader(in)); err == nil {
			t.Errorf("%s: got %v", name, v)
		}
	}
}

func FuzzInventory(f *testing.F) {
	b, _ := AppendInventory(nil, Inventory{Domains: []Domain{someDomain(1)}})
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		v, _, err := ReadInventory(bytes.NewReader(b))
		if err != nil {
			return
		}
		again, err := AppendInventory(nil, v)
		if err != nil {
			t.Fatal(err)
		}
		if got, _, err := ReadInventory(bytes.NewReader(again)); err != nil || len(got.Domains) != len(v.Domains) {
			t.Fatalf("%d VMs became %d: %v", len(v.Domains), len(got.Domains), err)
		}
	})
}

func TestARequestIsReadAsItWasSentAndHasNoAddress(t *testing.T) {
	for _, q := range []Request{{To: ToAgent, UUID: uuid.UUID{1}}, {To: ToBridge, UUID: uuid.UUID{2}, Port: 8080}} {
		b := q.Append(nil)
		if len(b) != requestSize {
			t.Errorf("%d bytes", len(b))
		}
		if got, err := ReadRequest(bytes.NewReader(b)); err != nil || got != q {
			t.Errorf("got %v, %v", got, err)
		}
	}
	for _, q := range []Request{{}, {To: 3}, {To: ToBridge}} {
		if _, err := ReadRequest(bytes.NewReader(q.Append(nil))); err == nil {
			t.Errorf("%v is a request", q)
		}
	}
}

func TestAnAnswerSaysWhyThereIsNoConnection(t *testing.T) {
	var r AnswerReader
	if err := r.Read(bytes.NewReader(AppendAnswer(nil, nil))); err != nil {
		t.Error(err)
	}
	for _, is := range []error{syscall.ECONNREFUSED, os.ErrDeadlineExceeded, os.ErrPermission, syscall.EHOSTUNREACH} {
		sent := fmt.Errorf("dial \x1bvsock:3: %w", is)
		err := r.Read(bytes.NewReader(AppendAnswer(nil, sent)))
		if !errors.Is(err, is) || err.Error() != strings.ReplaceAll(sent.Error(), "\x1b", "?") {
			t.Errorf("%v became %v", sent, err)
		}
	}
}
