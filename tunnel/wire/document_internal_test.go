package wire

import (
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestTheProtocolDocumentHasEveryKindOfMessage(t *testing.T) {
	doc, err := os.ReadFile("../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(doc), "\n## Messages\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var there, want []int
	for _, row := range regexp.MustCompile(`(?m)^\| (\d+) \|`).FindAllStringSubmatch(section, -1) {
		k, _ := strconv.Atoi(row[1])
		there = append(there, k)
	}
	for k := range 256 {
		if newMessage(messageKind(k)) != nil {
			want = append(want, k)
		}
	}
	if !slices.Equal(there, want) {
		t.Errorf("kinds %v are in the document, want %v", there, want)
	}
}
