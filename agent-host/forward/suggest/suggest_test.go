package suggest_test

import (
	"math"
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/forward/suggest"
)

func TestNoPortIsSuggestedForTwoUntilOneHasGone(t *testing.T) {
	all := make(suggest.Ports[string])
	taken := func(port uint16) bool { return port == 18081 }
	first, second := all.For("a", "tcp", 8080, taken), all.For("b", "tcp", 8080, taken)
	if first.Port != 18080 || second.Port != 18082 {
		t.Fatalf("%v, %v", first, second)
	}
	if again := all.For("c", "udp", 8080, taken); again.Port != 18080 {
		t.Errorf("of another protocol: %v", again)
	}
	all.Drop("b", first) // which is not its own
	if again := all.For("c", "tcp", 8080, taken); again.Port == first.Port {
		t.Errorf("%v is suggested twice", again)
	}
	all.Drop("a", first)
	if again := all.For("d", "tcp", 8080, taken); again != first {
		t.Errorf("%v, want %v", again, first)
	}
	if high := all.For("e", "tcp", math.MaxUint16, taken); high.Port < 1024 || high.Port > math.MaxUint16 {
		t.Errorf("%v is no port for everybody", high)
	}
}
