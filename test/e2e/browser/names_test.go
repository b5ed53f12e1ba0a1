//go:build e2e

package browser

import (
	"fmt"
	"slices"

	"github.com/chromedp/cdproto/accessibility"
)

// nameless are the controls that have no name for a screen reader.
func nameless(b *tab) (all []string) {
	b.t.Helper()
	for _, n := range call(b, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{}).Nodes {
		if n.Ignored || n.Role == nil {
			continue
		}
		role := string(n.Role.Value)
		if slices.Contains([]string{`"button"`, `"link"`, `"textbox"`, `"searchbox"`, `"combobox"`, `"dialog"`, `"table"`, `"image"`, `"img"`}, role) &&
			(n.Name == nil || string(n.Name.Value) == `""`) {
			all = append(all, fmt.Sprintf("%s %v", role, n.NodeID))
		}
	}
	return all
}
