package setup

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rum-vm/rum-agent/agent-host/libvirt"
	"github.com/rum-vm/rum-agent/test/domains"
)

// reach is what a definition says about reaching the guest.
type reach struct {
	CID    uint32
	Socket string
	NICs   []libvirt.NIC
	Ports  []libvirt.HostPort
	Images []string
}

func readReach(t *testing.T, text string) reach {
	t.Helper()
	def, err := libvirt.ParseDefinition(text)
	if err != nil {
		t.Fatal(err)
	}
	return reach{def.CID(), def.AgentSocket(), def.NICs(), def.HostPorts(), def.Images()}
}

// TestAWordThatNobodyKnowsHidesNothing puts a word that is no value of today into every attribute and text in turn, and
// an element that is none into every element: what says how to reach the guest stays.
func TestAWordThatNobodyKnowsHidesNothing(t *testing.T) {
	value := regexp.MustCompile(`='[^']*'`)
	for name, text := range domains.All(t) {
		root, err := parseText(text)
		if err != nil {
			t.Fatal(err)
		}
		want := readReach(t, text)
		check := func(changed, what string, ours bool) {
			t.Helper()
			got := readReach(t, changed)
			if _, err := insertDevices(changed, []device{{kind: "vsock", xml: "<vsock/>"}}); err != nil {
				t.Fatalf("%s, %s: %v", name, what, err)
			}
			if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
				cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" && !ours || len(got.NICs) != len(want.NICs) {
				t.Errorf("%s, %s:\n%s", name, what, diff)
			}
		}
		var walk func(e *element, ours bool)
		walk = func(e *element, ours bool) {
			ours = ours || slices.Contains([]string{"interface", "channel", "vsock", "disk", "commandline"}, e.name.Local)
			tag := text[e.start:e.inner]
			for _, at := range value.FindAllStringIndex(tag, -1) {
				check(text[:e.start]+tag[:at[0]]+"='perhaps'"+tag[at[1]:]+text[e.inner:], fmt.Sprintf("attribute %d of %s", at[0], e.name.Local), ours)
			}
			if !strings.HasSuffix(tag, "/>") {
				check(text[:e.inner]+"<later how='perhaps'>5</later>"+text[e.inner:], "a new element in "+e.name.Local, false)
			}
			for _, c := range e.children {
				walk(c, ours)
			}
		}
		walk(root, false)
	}
}
