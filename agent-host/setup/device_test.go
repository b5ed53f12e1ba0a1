package setup

import "testing"

func TestMACAddressIsStableAndUnique(t *testing.T) {
	const uuid = "5d1f6b0e-2a58-4c3b-9a39-6b4f0e9d7c11"
	first := deviceMAC(uuid, "hostonly", nil)
	if again := deviceMAC(uuid, "hostonly", map[string]bool{}); again != first {
		t.Errorf("%s, then %s", first, again)
	}
	if other := deviceMAC(uuid, "nat", nil); other == first {
		t.Error("two NICs of one domain have one address")
	}
	if next := deviceMAC(uuid, "hostonly", map[string]bool{first: true}); next == first {
		t.Error("an address in use was given")
	}
}
