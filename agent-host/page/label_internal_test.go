package page

import (
	"fmt"
	"strings"
	"testing"
)

func TestAVMWhoseNameIsALabelHasItWheneverItComes(t *testing.T) {
	for _, vms := range [][]string{{"A", "a", "a-2"}, {"a-2", "A", "a"}, {"a", "a-2", "A"}} {
		var together, later labels
		together.follow(vms)
		for n := range vms {
			later.follow(vms[:n+1])
		}
		for _, l := range []*labels{&together, &later} {
			if got := fmt.Sprint(l.label("A"), " ", l.label("a"), " ", l.label("a-2")); got != "a-3 a a-2" {
				t.Errorf("%q: A, a and a-2 are called %s", vms, got)
			}
			for label, vm := range map[string]string{"a": "a", "a-2": "a-2", "a-3": "A"} {
				if got, ok := l.vm(label); !ok || got != vm {
					t.Errorf("%q: %s is %q", vms, label, got)
				}
			}
		}
	}
}

// Names that are labels themselves are another matter.
func TestWhoHasALabelKeepsIt(t *testing.T) {
	var l labels
	long := strings.Repeat("a", 80)
	l.follow([]string{"Dev", "DEV", "Dev-2", "__", "", long, long + "b"})
	want := map[string]string{
		"Dev": "dev", "DEV": "dev-2", "Dev-2": "dev-2-2", "__": "vm", "": "vm-2", long: long[:63], long + "b": long[:61] + "-2",
	}
	for vm, label := range want {
		if got := l.label(vm); got != label {
			t.Errorf("%q is called %q, want %q", vm, got, label)
		}
		if got, ok := l.vm(label); !ok || got != vm {
			t.Errorf("%q is %q", label, got)
		}
	}
	l.follow([]string{"DEV", "new", "Dev"})
	if got := l.label("DEV"); got != "dev-2" {
		t.Errorf("DEV is called %q now", got)
	}
	l.follow([]string{"DEV"})
	if _, ok := l.vm("dev"); ok {
		t.Error("a VM that has gone has its label")
	}
	l.follow([]string{"DEV", "dEV"})
	if got := l.label("dEV"); got != "dev" {
		t.Errorf("dEV is called %q", got)
	}
}

func TestALabelIsOneThatBrowsersTake(t *testing.T) {
	for text, want := range map[string]string{
		"Dev_1": "dev-1", "xn--bcher-kva": "xn-bcher-kva", "ab---c": "ab-c", "a--b": "a--b", "abc--d": "abc--d", "-x-": "x", "ab--": "ab", "über": "ber", "漢字": "",
		strings.Repeat("x", 100): strings.Repeat("x", 63), strings.Repeat("x", 62) + "-y": strings.Repeat("x", 62),
	} {
		if got := labelOf(text); got != want {
			t.Errorf("%q is called %q, want %q", text, got, want)
		}
	}
}
