package libvirt

import (
	"encoding/hex"
	"fmt"
	"strings"

	golibvirt "github.com/digitalocean/go-libvirt"
)

// FormatUUID writes a UUID in the hyphenated lower-case form.
func FormatUUID(id golibvirt.UUID) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[0:4], id[4:6], id[6:8], id[8:10], id[10:16])
}

// parseUUID reads 32 hexadecimal digits, with or without hyphens.
func parseUUID(s string) (id golibvirt.UUID, ok bool) {
	b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil || len(b) != len(id) {
		return id, false
	}
	copy(id[:], b)
	return id, true
}
