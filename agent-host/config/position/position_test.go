package position_test

import (
	"testing"

	"github.com/rum-vm/rum-agent/agent-host/config/position"
)

const document = `# a comment with [brackets]
name = "x # y" # and one behind
[network]
subnet = '192.168.50.0/24'

[[ports]]
guest = 80
text = """
[[ports]]
# no comment"""
  [[ports]]
  "guest" = 81

[fs]
list = [{a = 1}, {a = 2}]
`

func TestKeysAndTablesAreFoundWhereTheyAre(t *testing.T) {
	root := position.Path("")
	ports := root.Key("ports")
	at := position.Of(document)
	for p, want := range map[position.Path][2]int{
		root.Key("name"):                             {2, 1},
		root.Key("network"):                          {3, 1},
		root.Key("network").Key("subnet"):            {4, 1},
		ports:                                        {6, 1},
		ports.Index(0):                               {6, 1},
		ports.Index(0).Key("text"):                   {8, 1},
		ports.Index(1):                               {11, 3},
		ports.Index(1).Key("guest"):                  {12, 3},
		root.Key("fs").Key("list").Index(1):          {15, 18},
		root.Key("fs").Key("list").Index(1).Key("a"): {15, 19},
	} {
		offset, ok := at[p]
		if line, column := position.LineAndColumn(document, offset); !ok || line != want[0] || column != want[1] {
			t.Errorf("%v: %v at %d:%d, want %v", p.Keys(), ok, line, column, want)
		}
	}
	if _, ok := at[ports.Index(2)]; ok {
		t.Error("a header in a text was taken for one")
	}
	if p := ports.Index(1); p.Parent() != ports || ports.Parent() != root {
		t.Errorf("%q is in %q", p, p.Parent())
	}
}
